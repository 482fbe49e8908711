"""Every file of a folder of real microscope data, where STEDFM_REAL_DATA names one, becomes a finite vector."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stedfm_hf import StedFmConfig, StedFmForPreTraining
from stedfm_hf.inference import TableResult, embed
from stedfm_hf.modeling.configuration_stedfm import ARCHITECTURES

ROOT = os.environ.get("STEDFM_REAL_DATA")
pytestmark = pytest.mark.skipif(not ROOT, reason="STEDFM_REAL_DATA does not name a folder of real data")
# This Imspector file was saved without its images.
WITHOUT_IMAGES = "msr/dummy_4channel.msr"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TableResult:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    StedFmForPreTraining(StedFmConfig(**ARCHITECTURES["stedfm-vit-64-p8"])).save_pretrained(folder)
    return embed(str(ROOT), model=folder, output=folder / "emb.parquet", device="cpu")


def test_every_image_but_the_empty_one_has_a_finite_vector_of_its_own(result: TableResult) -> None:
    vectors = np.array(result.table["embedding"].to_pylist())
    assert np.isfinite(vectors).all() and len(np.unique(vectors, axis=0)) == len(vectors)
    readable = {".tif", ".tiff", ".npy", ".msr", ".lif", ".czi", ".oib"}
    files = {p.relative_to(str(ROOT)).as_posix() for p in Path(str(ROOT)).rglob("*") if p.suffix in readable}
    masks = {path for path in files if path.endswith("_mask.tif") and path.replace("_mask.", "_image.") in files}
    assert set(result.table["path"].to_pylist()) == files - masks - {WITHOUT_IMAGES}
    assert result.manifest.options["skipped_files"]["masks"] == len(masks)


def test_the_empty_file_is_named(result: TableResult) -> None:
    assert result.manifest.exit_status == 1
    assert list(result.manifest.failures()) == [WITHOUT_IMAGES]
    assert "holds no image" in result.manifest.failures()[WITHOUT_IMAGES]


def test_pixel_sizes_come_along(result: TableResult) -> None:
    sizes = dict(zip(result.table["path"].to_pylist(), result.table["pixel_size_nm"].to_pylist(), strict=True))
    assert sizes["actin_raw/01_Block_1.tif"] == pytest.approx([20, 20], rel=1e-4)
    assert sizes["actin_raw/actin_1.tiff"] is None
