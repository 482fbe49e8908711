"""`stedfm info`: files as a table, folders as a summary, and a page of thumbnails."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf.info.info import info


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two kinds, a mask, a stack, a file with a preview, and a damaged file."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for name in ("rings/a.tif", "rings/b.tif", "fibres/c.tif"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 4000, (240, 230)).astype(np.uint16)
        metadata = {"axes": "YX", "unit": "um"}
        tifffile.imwrite(path, pixels, imagej=True, resolution=(50, 50), resolutionunit=1, metadata=metadata)
    tifffile.imwrite(root / "rings/a_mask.tif", np.ones((240, 230), np.uint8), metadata=None)
    stack = rng.integers(0, 9, (3, 40, 30)).astype(np.uint16)
    tifffile.imwrite(root / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(root / "preview.tif") as tif:
        tif.write(rng.integers(0, 9, (64, 64)).astype(np.uint8), photometric="minisblack", metadata=None)
        tif.write(np.zeros((8, 8), np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
    (root / "broken.tif").write_bytes((root / "rings/a.tif").read_bytes()[:500])
    return root


def test_a_folder_is_summarised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = info([folder])
    text = result.summary()
    assert text.splitlines()[0] == "5 image files (4 ImageJ TIFF, 1 TIFF), 1 mask, 1 unreadable file"
    assert re.search(r"^3 +fibres/c.tif +1 +1: 0 +240 x 230 +uint16 +20 x 20 nm$", text, re.MULTILINE)
    assert re.search(r"^1 +stack.tif +3 ", text, re.MULTILINE)
    assert "1 file: preview pages are left out (preview.tif)" in text
    assert "2 files: the file has no pixel size" in text and "2 files: smaller than 224 pixels" in text
    assert re.search(r"^embed, classify +5 files: 7 rows$", text, re.MULTILINE)
    assert re.search(r"^segment +4 files; 1 file with several series needs --series$", text, re.MULTILINE)
    assert "2 classes from folders: rings (2), fibres (1)" in text
    assert "1 image with a mask (such as a_mask.tif for rings/a.tif), 5 without" in text
    assert "broken.tif" in capsys.readouterr().err and result.exit_status == 1
    assert {record["path"] for record in result.to_json()} >= {"rings/a.tif", "stack.tif"}


def test_files_are_listed_with_notes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = info([folder / "stack.tif", folder / "preview.tif"])
    assert [line.split()[1] for line in result.summary().splitlines()[1:]] == [
        "image[z=0]",
        "image[z=1]",
        "image[z=2]",
        "image",
    ]
    assert "note: 1 file: preview pages are left out (preview.tif)" in capsys.readouterr().err
    assert result.exit_status == 0


def test_thumbnails_show_every_image_and_reason(folder: Path, tmp_path: Path) -> None:
    info([folder], thumbnails=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 3 + 1 + 3 + 1
    assert "rings" in page and "a_mask.tif" in page and "image[z=2]" in page
    assert "Not readable" in page and "broken.tif" in page
    assert not re.search(r'(src|href)="http', page)


def test_a_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stedfm_hf.data import build

    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 60000, (64, 64)).astype(np.uint16))
    build(tmp_path / "a.npy", tmp_path / "crops", crop_size=32, workers=1)
    capsys.readouterr()
    assert info([tmp_path / "crops"]).summary() == ""
    assert "stedfm data stats" in capsys.readouterr().err


def test_a_page_needs_no_pixels_of_large_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedfm_hf.images import regions

    monkeypatch.setattr(regions, "LARGE_BYTES", 1)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((700, 600), np.uint16), tile=(64, 64), compression="zlib")
    info([tmp_path], thumbnails=tmp_path / "page.html")
    assert "a.tif" in (tmp_path / "page.html").read_text(encoding="utf-8")
