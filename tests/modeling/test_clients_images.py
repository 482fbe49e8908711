"""Images as other libraries hand them over, and the arguments of `from_pretrained` that place a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from stedfm_hf import StedFmImageProcessor, StedFmModel
from tests.models import pixels, tiny_config


def test_a_column_of_16_bit_images_keeps_all_bits(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(300, (2, 64, 64)).astype(np.uint16)
    features = datasets.Features({"image": datasets.Image()})
    column = datasets.Dataset.from_dict({"image": [Image.fromarray(each) for each in counts]}, features=features)
    column.to_parquet(tmp_path / "images.parquet")
    stored = datasets.Dataset.from_parquet(str(tmp_path / "images.parquet"), cache_dir=str(tmp_path))
    processor = StedFmImageProcessor(patch_size=8)
    expected = processor(list(counts), return_tensors="pt")["pixel_values"]
    for images in (column, stored):
        prepared = images.with_transform(lambda batch: processor(batch["image"], return_tensors="pt"))
        assert torch.equal(torch.stack([prepared[k]["pixel_values"] for k in range(2)]), expected)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_places_the_model(tmp_path: Path, device_map: Any) -> None:
    model = StedFmModel(tiny_config()).eval()
    model.save_pretrained(tmp_path)
    placed = StedFmModel.from_pretrained(tmp_path, device_map=device_map).eval()
    assert torch.equal(placed(pixels()).last_hidden_state, model(pixels()).last_hidden_state)
