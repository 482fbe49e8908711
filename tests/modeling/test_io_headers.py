"""TIFF headers that contradict the file, or cannot be read: the pixels are kept, and a note says what is missing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.modeling.io_ome_stedfm import read_ome
from stedfm_hf.modeling.io_stedfm import ImageReadError, list_series, read_image, read_series
from stedfm_hf.modeling.io_types_stedfm import unit_in_nm

PLANES = np.random.default_rng(0).integers(1, 4000, (3, 24, 20)).astype(np.uint16)
OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0" Name="cell"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="24" '
    'SizeZ="1" SizeC="1" SizeT="{t}" PhysicalSizeX="{size}" PhysicalSizeY="{size}"><Channel ID="Channel:0:0" '
    'Name="{channel}" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
)


def write(path: Path, pixels: np.ndarray, description: str = "", **options: object) -> Path:
    settings: dict[str, object] = {"photometric": "minisblack", "metadata": None, **options}
    tifffile.imwrite(path, pixels, description=description.encode(), **settings)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("values", "pixel_nm", "noted"),
    [
        ({}, 20, False),
        ({"channel": "Actin & Tubulin"}, None, True),
        ({"channel": "a\x01b"}, None, True),
        ({"size": "0,02"}, None, True),
        ({"size": ""}, None, True),
        ({"size": "null"}, None, True),
        ({"t": ""}, 20, True),
    ],
)
def test_a_faulty_ome_header_costs_no_pixel(
    tmp_path: Path, values: dict[str, str], pixel_nm: float | None, noted: bool
) -> None:
    header = OME.format(**{"size": "0.02", "channel": "STAR RED", "t": "1", **values})
    image = read_image(write(tmp_path / "a.ome.tif", PLANES[0], header))
    np.testing.assert_array_equal(image.array[0], PLANES[0])
    assert image.pixel_size_nm == (None if pixel_nm is None else pytest.approx((pixel_nm, pixel_nm)))
    assert bool(image.metadata.get("notes")) == noted


def test_a_header_of_fewer_planes_hides_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "one.ome.tif", PLANES[0], metadata={"axes": "YX", "PhysicalSizeX": 0.02})
    with tifffile.TiffFile(tmp_path / "one.ome.tif") as tif:
        ome = tif.ome_metadata or ""
    imagej = "ImageJ=1.54f\nimages=2\nslices=2\nunit=micron\n"
    for header in (ome, imagej):
        path = write(tmp_path / "stack.tif", PLANES, header, resolution=(50, 50), resolutionunit=1)
        images = list(read_series(path))
        np.testing.assert_array_equal(np.concatenate([image.array for image in images]), PLANES)
        assert "of the 3 planes" in images[0].metadata["notes"][0]


def test_a_slide_label_beyond_the_header_is_not_a_missing_plane(tmp_path: Path) -> None:
    header = OME.format(size="0.02", channel="STAR RED", t="1")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(PLANES[0], description=header.encode(), photometric="minisblack", metadata=None)
        tif.write(PLANES[0][:8, :8], photometric="minisblack", metadata=None)
    assert [(each.name, each.shape) for each in list_series(tmp_path / "a.ome.tif")] == [("cell", (1, 24, 20))]


def test_parts_of_a_stack_are_read_and_noted(tmp_path: Path) -> None:
    header = "ImageJ=1.53t\nimages=5\nframes=5\nunit=micron\nloop=false\n"
    for count in (1, 2):
        path = write(tmp_path / "part.tif", PLANES[:count], header, resolution=(50, 50), resolutionunit=1)
        images = list(read_series(path))
        np.testing.assert_array_equal(np.concatenate([image.array for image in images]), PLANES[:count])
        assert images[0].pixel_size_nm == pytest.approx((20, 20))
        assert images[0].metadata["notes"] == [f"the ImageJ header declares 5 planes, the file holds {count}"]


def test_a_stack_that_ends_within_a_plane_is_truncated(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANES, imagej=True)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: -PLANES[0].nbytes // 2])
    with pytest.raises(ImageReadError, match="truncated"):
        list_series(tmp_path / "a.tif")


def test_preview_pages_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(PLANES[0], photometric="minisblack", metadata=None)
        tif.write(PLANES[0][::8, ::8].astype(np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array[0], PLANES[0])
    assert image.metadata["notes"] == ["preview pages are left out"]


def test_a_file_of_one_channel_has_the_name_of_that_channel(tmp_path: Path) -> None:
    names = ("DAPI", "STAR RED")
    data = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="cell_C{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for c in (0, 1)
    )
    channels = "".join(f'<Channel ID="Channel:0:{c}" Name="{name}"/>' for c, name in enumerate(names))
    for c in (0, 1):
        header = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{c}"><Image ID="Image:0" '
            'Name="cell"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="24" SizeZ="1" '
            f'SizeC="2" SizeT="1">{channels}{data}</Pixels></Image></OME>'
        )
        image = read_image(write(tmp_path / f"cell_C{c}.ome.tif", PLANES[c], header))
        assert image.channel_names == (names[c],)
        np.testing.assert_array_equal(image.array[0], PLANES[c])
        # A copy under another name is recognised by its id.
        copy = tmp_path / "renamed.ome.tif"
        copy.write_bytes((tmp_path / f"cell_C{c}.ome.tif").read_bytes())
        assert read_image(copy).channel_names == (names[c],)


def test_a_header_with_an_impossible_number_of_planes_is_refused() -> None:
    with pytest.raises(ImageReadError, match="planes"):
        read_ome('<OME><Image><Pixels SizeZ="99999" SizeT="99999"/></Image></OME>', "a.tif")


@pytest.mark.parametrize("kind", [3, 4])
def test_strips_that_declare_too_many_bytes(tmp_path: Path, kind: int) -> None:
    path = write(tmp_path / "a.tif", PLANES[0], rowsperstrip=7)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        code, stored, count, place = struct.unpack_from("<HHII", data, start + 2 + 12 * entry)
        if code == 279:
            size = 4 if stored == 4 else 2
            for strip in range(count):
                struct.pack_into("<I" if stored == 4 else "<H", data, place + strip * size, 60000)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path).array[0], PLANES[0])


def test_every_axis_has_its_own_unit(tmp_path: Path) -> None:
    header = "ImageJ=1.53t\nunit=micron\nyunit=nm\n"
    path = write(tmp_path / "a.tif", PLANES[0], header, resolution=(50, 0.05), resolutionunit=1)
    assert read_image(path).pixel_size_nm == pytest.approx((20, 20))
    metadata = {"PhysicalSizeX": 0.02, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "pm"}
    tifffile.imwrite(tmp_path / "b.ome.tif", PLANES[0], metadata={"axes": "YX", **metadata})
    assert read_image(tmp_path / "b.ome.tif").pixel_size_nm == pytest.approx((0.25, 20))


@pytest.mark.parametrize("text", ["µm", "μm", "Î¼m", "Âµm", "\\u00B5m", "um"])
def test_micrometres_in_every_encoding(text: str) -> None:
    assert unit_in_nm(text) == 1000


def test_a_short_last_axis_holds_the_channels(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 99, (40, 30, 2)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, np.moveaxis(array, -1, 0))
    assert "channels" in image.metadata["notes"][0]
