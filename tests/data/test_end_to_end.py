"""End-to-end test: from simulated or real images to a data set, `load_dataset` and the stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from torch.utils.data import DataLoader

from stedfm_hf.data import build, decode, simulate, stream


def assert_streams_what_the_library_loads(repo: Path, split: str) -> None:
    """Check that `datasets`, with and without streaming, and `stream` on two ranks give the same rows."""
    loaded = datasets.load_dataset(str(repo), split=split)
    rows = decode(loaded[:])
    streamed = datasets.load_dataset(str(repo), split=split, streaming=True)
    for number, row in enumerate(streamed):
        assert row["pixels"] == loaded[number]["pixels"]
    seen: list[int] = []
    for rank in (0, 1):
        wanted: dict[str, Any] = {"drop_last": False, "columns": ("label", "mask")}
        batches = stream(repo, split, batch_size=3, rank=rank, world_size=2, **wanted)
        for batch in DataLoader(batches, batch_size=None):
            index = batch["index"]
            np.testing.assert_array_equal(batch["pixels"].numpy(), rows["pixels"].numpy()[index])
            np.testing.assert_array_equal(batch["label"].numpy(), rows["label"].numpy()[index])
            if "mask" in rows:
                np.testing.assert_array_equal(batch["mask"].numpy(), rows["mask"].numpy()[index])
            seen += index[batch["valid"]].tolist()
    assert sorted(seen) == list(range(len(loaded)))


@pytest.mark.filterwarnings("ignore:.*ranks reads")
def test_simulated_files_become_a_data_set_that_streams(tmp_path: Path) -> None:
    simulate(
        tmp_path / "simulated",
        structures=["rings", "puncta"],
        per_structure=6,
        height=70,
        width=64,
        workers=1,
    )
    images, masks = tmp_path / "simulated" / "images", tmp_path / "simulated" / "masks"
    summary = build(images, tmp_path / "repo", crop_size=32, labels="folder", masks=masks, workers=1)
    assert summary.labels == ("puncta", "rings") and sum(summary.crops.values()) > 40
    assert set(summary.crops) == {"train", "validation", "test"}
    for split in summary.crops:
        assert_streams_what_the_library_loads(tmp_path / "repo", split)


@pytest.mark.filterwarnings("ignore:.*ranks reads")
@pytest.mark.skipif("STEDFM_REAL_DATA" not in os.environ, reason="STEDFM_REAL_DATA is not set")
@pytest.mark.parametrize("pixels", ["8bit", "raw"])
def test_real_files_become_a_data_set_that_streams(tmp_path: Path, pixels: str) -> None:
    folder = Path(os.environ["STEDFM_REAL_DATA"]) / "actin_raw"
    build(folder, tmp_path / "repo", crop_size=64, pixels=pixels, validation=0.2, test=0.2, workers=1)
    for split in ("train", "validation", "test"):
        assert_streams_what_the_library_loads(tmp_path / "repo", split)
