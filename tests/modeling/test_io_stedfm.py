"""Reading images: PNG, JPEG, BMP, npy, npz, the choice of series and channels, and what is said about bad files."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from stedfm_hf.images import find_images  # noqa: F401  (registers the Imspector reader, as users have it)
from stedfm_hf.modeling.io_stedfm import (
    ImageReadError,
    list_series,
    read_image,
    read_series,
    readable_suffixes,
)
from stedfm_hf.modeling.io_types_stedfm import unique_names

DTYPES = st.sampled_from(["u1", "<u2", ">u2", "i1", "<i2", ">i2", "<u4", ">i4", "<f4", ">f4", "<f8", "<f2", "<i8"])
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


def same(array: np.ndarray, expected: np.ndarray) -> None:
    assert array.dtype == expected.dtype.newbyteorder("=")
    assert array.dtype.isnative
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)


def error_of(path: Path, **wanted: str | int) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_image(path, **wanted)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


@given(data=st.data(), dtype=DTYPES, shape=hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))
def test_npy_round_trip(tmp_path: Path, data: st.DataObject, dtype: str, shape: tuple[int, ...]) -> None:
    array = data.draw(hnp.arrays(dtype, shape))
    array = np.asfortranarray(array) if data.draw(st.booleans()) else array
    np.save(tmp_path / "a.npy", array)
    expected = array if array.ndim == 3 else array[None]
    if array.ndim == 3 and shape[2] <= 4 and shape[2] < min(shape[:2]):
        expected = array.transpose(2, 0, 1)
    image = read_image(tmp_path / "a.npy")
    if image.array.shape[0] == 1 and expected.shape[0] == 3:  # colour planes that are equal or empty
        expected = next((plane for plane in expected if plane.any()), expected[0])[None]
    same(image.array, expected)
    assert image.array.flags.writeable
    (info,) = list_series(tmp_path / "a.npy")
    assert (info.shape, info.dtype) == (image.array.shape, image.array.dtype.name)


@given(array=hnp.arrays(np.uint16, SHAPES))
def test_png_keeps_16_bit(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "a.png")
    same(read_image(tmp_path / "a.png").array, array[None])


@given(array=hnp.arrays(np.uint8, SHAPES), suffix=st.sampled_from([".png", ".bmp"]), mode=st.sampled_from("1LP"))
def test_8_bit_pictures(tmp_path: Path, array: np.ndarray, suffix: str, mode: str) -> None:
    picture = Image.fromarray(array % 2 == 1 if mode == "1" else array)
    picture = picture.convert("P") if mode == "P" else picture
    picture.save(tmp_path / f"a{suffix}")
    same(read_image(tmp_path / f"a{suffix}").array, array[None] % 2 if mode == "1" else array[None])


def test_colours(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    alpha = np.dstack([rgb, np.full((5, 7), 9, np.uint8)])
    for name, pixels in (("rgb", rgb), ("rgba", alpha)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        image = read_image(tmp_path / f"{name}.png")
        assert image.channel_names == ("red", "green", "blue")
        same(image.array, rgb.transpose(2, 0, 1))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    same(read_image(tmp_path / "grey.png").array, grey.transpose(2, 0, 1)[:1])
    assert list_series(tmp_path / "grey.png")[0].shape == (1, 5, 7)
    Image.fromarray(rgb[..., 0]).convert("LA").save(tmp_path / "la.png")
    same(read_image(tmp_path / "la.png").array, rgb.transpose(2, 0, 1)[:1])
    np.save(tmp_path / "rgb.npy", rgb)
    assert read_image(tmp_path / "rgb.npy", channel="green").channel_names == ("green",)


def test_jpeg(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 100, np.uint8)).save(tmp_path / "a.jpg")
    same(read_image(tmp_path / "a.jpg").array, np.full((1, 16, 16), 100, np.uint8))
    Image.new("CMYK", (4, 4)).save(tmp_path / "b.jpg")
    assert "CMYK" in error_of(tmp_path / "b.jpg")


def test_16_bit_colour_png_is_refused_not_cut_to_8_bit(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(2 * (1 + 2 * 6)))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert "8 bit" in error_of(tmp_path / "a.png")


def test_large_picture_and_declared_giant(tmp_path: Path) -> None:
    Image.new("L", (10_000, 10_000), 7).save(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png").array.shape == (1, 10_000, 10_000)
    content = (tmp_path / "large.png").read_bytes()
    header = b"IHDR" + (2**30).to_bytes(4, "big") * 2 + content[24:29]
    giant = content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    (tmp_path / "giant.png").write_bytes(giant)
    assert "too large" in error_of(tmp_path / "giant.png")


def test_npz_arrays_are_series(tmp_path: Path) -> None:
    sted, confocal = np.full((4, 5), 60_000, np.uint16), np.zeros((2, 4, 5), np.float32)
    labels = np.array(["a", "b"])
    secret = np.array([{"a": 1}], dtype=object)
    np.savez_compressed(tmp_path / "a.npz", sted=sted, confocal=confocal, labels=labels, metadata=secret)
    assert [each.name for each in list_series(tmp_path / "a.npz")] == ["sted", "confocal"]
    same(read_image(tmp_path / "a.npz", series="sted").array, sted[None])
    same(read_image(tmp_path / "a.npz", series=1).array, confocal)
    text = error_of(tmp_path / "a.npz")
    assert "2 series" in text and "sted, confocal" in text
    assert "pickled" in error_of(tmp_path / "a.npz", series="metadata")
    assert [image.series for image in read_series(tmp_path / "a.npz")] == ["sted", "confocal"]


def test_reference_crop_with_pickled_metadata_gives_its_image(tmp_path: Path) -> None:
    crop = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.savez(tmp_path / "a.npz", image=crop, metadata=np.array({"chunk": 1}, dtype=object))
    image = read_image(tmp_path / "a.npz")
    same(image.array, crop[None])
    assert "pickled" in image.metadata["left_out"]["metadata"]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".png"])
def test_nothing_is_unpickled(tmp_path: Path, suffix: str) -> None:
    trap = np.array([[Bomb(tmp_path / "executed")]], dtype=object)
    buffer = io.BytesIO()
    (np.savez if suffix == ".npz" else np.save)(buffer, trap)
    (tmp_path / f"trap{suffix}").write_bytes(buffer.getvalue())
    assert "pickled" in error_of(tmp_path / f"trap{suffix}")
    (tmp_path / f"plain{suffix}").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    error_of(tmp_path / f"plain{suffix}")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 3), complex), "complex128"),
        (np.array([["a"]]), "U1"),
        (np.zeros((2, 2), "M8[s]"), "datetime64"),
        (np.zeros((2, 2), [("a", "u1")]), "not supported"),
        (np.zeros(5), "shape (5,)"),
        (np.zeros((2, 2, 2, 2)), "shape (2, 2, 2, 2)"),
        (np.zeros((0, 5)), "empty"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array)
    assert words in error_of(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", a=array)
    assert words in error_of(tmp_path / "a.npz")


def test_truth_values_become_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, dtype=bool))
    same(read_image(tmp_path / "a.npy").array, np.eye(3, dtype=np.uint8)[None])


def npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<u2", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    giant = npy_header((2**20, 2**20))
    (tmp_path / "a.npy").write_bytes(giant + bytes(100))
    assert "truncated" in error_of(tmp_path / "a.npy")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("a.npy", giant + bytes(10**6))
        assert "truncated" in error_of(tmp_path / "a.npz")


def test_damaged_member_of_an_archive_is_found_by_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros((50, 50), np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert "CRC" in error_of(tmp_path / "a.npz")


def test_choice_of_series_and_channel(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {f"a{k}": np.zeros((2, 3, 4)) for k in range(15)}
    np.savez(tmp_path / "many.npz", **arrays)
    text = error_of(tmp_path / "many.npz")
    assert "15 series" in text and "a11, ..." in text and "a12" not in text
    assert "no series 'b'" in error_of(tmp_path / "many.npz", series="b")
    assert "no series 15" in error_of(tmp_path / "many.npz", series=15)
    assert "no series -1" in error_of(tmp_path / "many.npz", series=-1)
    assert read_image(tmp_path / "many.npz", series="14").series == "a14"
    assert read_image(tmp_path / "many.npz", series=0, channel="1").array.shape == (1, 3, 4)
    assert "no channel 2" in error_of(tmp_path / "many.npz", series=0, channel=2)


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#2#2"])))
def test_unique_names(names: list[str]) -> None:
    result = unique_names(names)
    assert len(set(result)) == len(result) == len(names)
    assert all(unique == name or unique.startswith(f"{name}#") for unique, name in zip(result, names, strict=True))
    assert set(names) <= set(result)


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    same(image.array, pixels[None])
    assert image.metadata["format"] == "PNG"


def test_paths_that_are_no_image_file(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "none.tif")
    assert "folder" in error_of(tmp_path)
    (tmp_path / "empty.tif").touch()
    assert "0 bytes" in error_of(tmp_path / "empty.tif")
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert "(.txt)" in error_of(tmp_path / "notes.txt")
    try:
        (tmp_path / "broken.tif").symlink_to(tmp_path / "nowhere.tif")
    except OSError:
        return  # this system makes no links
    assert "no such file" in error_of(tmp_path / "broken.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    assert "regular" in error_of(tmp_path / "pipe.tif")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    (tmp_path / "a.npy").chmod(0)
    if os.access(tmp_path / "a.npy", os.R_OK):  # the administrator and Windows read it all the same

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    assert "permission" in error_of(tmp_path / "a.npy")
    (tmp_path / "a.npy").chmod(stat.S_IRUSR | stat.S_IWUSR)


def samples() -> dict[str, tuple[bytes, np.ndarray]]:
    """One small file of every kind, with the pixels of its only image."""
    rng = np.random.default_rng(1)
    grey8, grey16 = (rng.integers(0, top, (1, 6, 5)).astype(kind) for top, kind in ((255, "u1"), (65_535, "u2")))
    found = {}

    def keep(suffix: str, pixels: np.ndarray, write: Callable[[io.BytesIO], object]) -> None:
        buffer = io.BytesIO()
        write(buffer)
        found[suffix] = (buffer.getvalue(), pixels)

    keep("a.png", grey16, lambda to: Image.fromarray(grey16[0]).save(to, "PNG"))
    keep("a.bmp", grey8, lambda to: Image.fromarray(grey8[0]).save(to, "BMP"))
    keep("a.npy", grey16, lambda to: np.save(to, grey16))
    keep("a.npz", grey16, lambda to: np.savez_compressed(to, image=grey16))
    keep("plain.tif", grey16, lambda to: tifffile.imwrite(to, grey16[0]))
    keep("big.tif", grey16, lambda to: tifffile.imwrite(to, grey16[0], bigtiff=True, byteorder=">"))
    keep("packed.tif", grey16, lambda to: tifffile.imwrite(to, grey16[0], compression="zlib", rowsperstrip=2))
    keep("tiled.tif", grey16, lambda to: tifffile.imwrite(to, grey16[0], tile=(16, 16), compression="zlib"))
    keep("rgb.tif", np.repeat(grey8, 3, 0)[:1], lambda to: tifffile.imwrite(to, np.dstack([grey8[0]] * 3)))
    keep("imagej.tif", grey16, lambda to: tifffile.imwrite(to, grey16[0], imagej=True, resolution=(50, 50)))
    keep("ome.tif", grey16, lambda to: tifffile.imwrite(to, grey16, ome=True, metadata={"axes": "CYX"}))
    return found


SAMPLES = samples()
MARKS = (b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"\x89PNG\r\n\x1a\n", b"BM", b"\x93NUMPY\x01\0", b"PK\x03\x04")


@given(data=st.data(), kind=st.sampled_from(sorted(SAMPLES)))
def test_cut_anywhere_gives_the_image_or_one_line(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content, pixels = SAMPLES[kind]
    cut = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path / kind
    path.write_bytes(content[:cut])
    try:
        image = read_image(path)
    except ImageReadError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
    else:
        np.testing.assert_array_equal(image.array, pixels)


@given(data=st.data(), kind=st.sampled_from(sorted(SAMPLES)))
def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content = bytearray(SAMPLES[kind][0])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / kind
    path.write_bytes(content)
    for read in (list_series, read_image):
        try:
            read(path)
        except ImageReadError as error:
            assert "\n" not in str(error)


@given(
    content=st.binary(min_size=1, max_size=200),
    head=st.sampled_from([b"", *MARKS]),
    suffix=st.sampled_from([*readable_suffixes(), ".xyz"]),
)
def test_random_bytes(tmp_path: Path, content: bytes, head: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(head + content)
    with pytest.raises(ImageReadError):
        read_image(path)


def png(path: Path, width: int, bits: int, colour_type: int, rows: list[bytes], palette: bytes = b"") -> Path:
    """Write a PNG chunk by chunk, because Pillow writes no grey PNG of 2 or 4 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else [])]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_values_of_a_png_are_those_that_are_stored(tmp_path: Path, bits: int) -> None:
    array = np.arange(2**bits, dtype=np.uint8)
    array = np.tile(array, 8)[None]
    flat = ((array[0][:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    path = png(tmp_path / "a.png", array.shape[1], bits, 0, [np.packbits(flat.ravel()).tobytes()])
    np.testing.assert_array_equal(read_image(path).array[0], array)


def test_a_lookup_table_keeps_the_values_and_a_palette_of_colours_becomes_colours(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8)[None]
    ramp = np.zeros((256, 3), np.uint8)
    ramp[:, [0, 2]] = np.arange(256)[:, None]
    image = read_image(png(tmp_path / "a.png", 256, 8, 3, [values.tobytes()], ramp.tobytes()))
    np.testing.assert_array_equal(image.array, values[None])
    assert "lookup table" in image.metadata["notes"][0]
    colours = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    image = read_image(png(tmp_path / "b.png", 256, 8, 3, [values.tobytes()], colours.tobytes()))
    np.testing.assert_array_equal(image.array[:, 0], colours.T)
