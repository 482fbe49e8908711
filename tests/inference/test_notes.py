"""What was assumed or left out while files were read is reported once per run, with the number of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
from stedfm_hf.data import build
from stedfm_hf.inference import embed, segment


def test_each_note_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 999, (40, 40)).astype(np.uint16)
    for name in ("a", "b"):
        with tifffile.TiffWriter(folder / f"{name}.tif") as tif:
            tif.write(pixels, photometric="minisblack", metadata=None)
            tif.write(pixels[::8, ::8], photometric="minisblack", subfiletype=1, metadata=None)
    tifffile.imwrite(folder / "c.tif", pixels)
    config = StedFmConfig(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=4, num_attention_heads=4)
    config.decoder, config.id2label = "linear", {0: "background", 1: "rings"}
    StedFmForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    line = "stedfm: note: 2 files: preview pages are left out (a.tif, b.tif)"
    table = embed(folder, model=tmp_path / "model", output=tmp_path / "e.parquet", device="cpu")
    assert capsys.readouterr().err.splitlines().count(line) == 1
    masks = segment(folder, tmp_path / "masks", model=tmp_path / "model", device="cpu")
    assert capsys.readouterr().err.splitlines().count(line) == 1
    build(folder, tmp_path / "crops", crop_size=32, min_foreground=0.0, workers=1)
    assert capsys.readouterr().err.splitlines().count(line) == 1
    for manifest in (table.manifest, masks.manifest):
        assert [manifest.items[name].reason for name in ("a.tif", "c.tif")] == ["preview pages are left out", None]
