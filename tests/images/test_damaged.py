"""Mutated files of every format: an ImageReadError on one line, within seconds and without filling the memory.

Each format has 30 mutated files, and 1,000 with HYPOTHESIS_PROFILE=thorough. Files of microscopes are used where
STEDFM_REAL_DATA names their folder, and written ones otherwise.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from stedfm_hf.images import ImageReadError, list_series, read_image, read_series
from tests.images import leica_files, nikon_files, olympus_files
from tests.images.imspector_files import Stack, write_obf
from tests.images.test_lsm import write_lsm

FOLDER = os.environ.get("STEDFM_REAL_DATA")
WORDS = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")
QUICK = 25  # examples of the profiles other than thorough
LONGEST = 10.0  # seconds for one file
MEMORY = 2 * 2**30
PIXELS = np.random.default_rng(0).integers(1, 4000, (2, 3, 20, 25)).astype("u2")


def leica(folder: Path) -> list[Path]:
    image = leica_files.Image(PIXELS, "TCYX")
    return [leica_files.write_lif(folder / "a.lif", image), leica_files.write_lof(folder / "a.lof", image)]


def zeiss(folder: Path) -> list[Path]:
    czi = pytest.importorskip("pylibCZIrw.czi")
    found = [folder / "a.czi", folder / "b.czi"]
    for path, compression in zip(found, (None, "zstd1:ExplicitLevel=2"), strict=True):
        with czi.create_czi(str(path), compression_options=compression) as file:
            for t, channels in enumerate(PIXELS):
                for c, plane in enumerate(channels):
                    file.write(data=plane, plane={"T": t, "C": c})
            file.write_metadata(document_name="a", scale_x=2e-8, scale_y=2e-8)
    return found


def nikon(folder: Path) -> list[Path]:
    frames = np.moveaxis(PIXELS, 1, -1)
    return [
        nikon_files.write_nd2(folder / f"{packed}.nd2", frames, [("t", 2)], ["a", "b", "c"], compressed=packed)
        for packed in (False, True)
    ]


def olympus(folder: Path) -> list[Path]:
    files = olympus_files.planes(PIXELS, "TC")
    return [olympus_files.write_oib(folder / "a.oib", olympus_files.settings("XYCT"), files)]


def imspector(folder: Path) -> list[Path]:
    stack = [Stack(PIXELS[0], ("Z", "Y", "X"), packed=packed) for packed in (True, False)]
    return [write_obf(folder / "a.msr", *stack)]


def lsm(folder: Path) -> list[Path]:
    return [write_lsm(folder / "a.lsm", PIXELS, 0, ("a", "b", "c"))]


def tiff(folder: Path) -> list[Path]:
    tifffile.imwrite(folder / "a.tif", PIXELS, metadata={"axes": "TCYX"}, imagej=True)
    tifffile.imwrite(folder / "b.tif", PIXELS, metadata={"axes": "TCYX"}, ome=True, compression="zlib")
    return [folder / "a.tif", folder / "b.tif"]


def ome_zarr(folder: Path) -> list[Path]:
    pytest.importorskip("zarr")
    from tests.images.test_ome_zarr import write

    return [write(folder / f"{version}.zarr", PIXELS, "tcyx", version=version) for version in ("0.4", "0.5")]


FORMATS: dict[Callable[[Path], list[Path]], tuple[str, str]] = {
    leica: ("liffile", "formats/*.lif"),
    zeiss: ("pylibCZIrw", "formats/*.czi"),
    nikon: ("nd2", ""),
    olympus: ("oiffile", "formats/*.oib"),
    imspector: ("obffile", "msr/dummy_[13]*.msr"),
    lsm: ("tifffile", ""),
    tiff: ("tifffile", ""),
    ome_zarr: ("zarr", ""),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Cut, shift or overwrite bytes of a file; half of the bytes are in its header."""
    kind, place = rng.random(), rng.randrange(len(content))
    if kind < 0.15:
        return content[: max(1, place)]
    if kind < 0.3:
        return content[:place] + (rng.randbytes(rng.randrange(200)) if kind < 0.22 else b"") + content[place + 3 :]
    found = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 20, 100])):
        place = rng.randrange(len(found) if rng.random() < 0.5 else min(len(found), 4096))
        if rng.random() < 0.3:
            found[place : place + 4] = rng.choice(WORDS)[: len(found) - place]
        else:
            digit = 48 <= found[place] <= 57
            found[place] = rng.randrange(48, 58) if digit else rng.randrange(256)
    return bytes(found)


def mutate(source: Path, target: Path, rng: random.Random) -> None:
    """Copy a file or folder, and mutate it, or a file in it."""
    if source.is_file():
        target.write_bytes(mutated(source.read_bytes(), rng))
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    members = sorted(each for each in target.rglob("*") if each.is_file())
    headers = [each for each in members if each.name.startswith(".") or each.suffix == ".json"]
    member = rng.choice(headers if rng.random() < 0.6 else members)
    member.write_bytes(mutated(member.read_bytes() or b"x", rng))


def results(path: Path) -> Iterator[object]:
    """Read a file in every way."""
    yield list_series(path)
    yield from read_series(path)


def peak_memory() -> int:
    """Return the largest memory of this process so far in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_mutated_files(tmp_path: Path, write: Callable[[Path], list[Path]]) -> None:
    library, pattern = FORMATS[write]
    pytest.importorskip(library)
    sources = sorted(Path(FOLDER).glob(pattern)) if FOLDER and pattern else []
    sources += write(tmp_path)
    for source in sources:
        list(read_series(source))  # readable before they are damaged
    rng, before = random.Random(0), peak_memory()
    count = 30 if settings().max_examples <= QUICK else 1000
    for k in range(count):
        source = sources[k % len(sources)]
        target = tmp_path / f"mutated{source.suffix}"
        mutate(source, target, rng)
        start = time.monotonic()
        try:
            for _ in results(target):
                pass
        except ImageReadError as error:
            assert "\n" not in str(error) and str(target) in str(error)
        try:
            read_image(target, series=0)
        except ImageReadError:
            pass
        assert time.monotonic() - start < LONGEST, k
    assert peak_memory() - before < MEMORY
