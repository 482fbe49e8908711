from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.repository.layout import Crop, Scaling
from tests.data.assembled import as_table, noisy_crop

LABELS = ("a", "b", "c")


def chosen(preview: Preview, split: str = "train") -> list[tuple[str, int]]:
    return [(row["source"], row["x"]) for row in preview.rows(split)]


@given(
    st.lists(st.sampled_from([None, *LABELS]), min_size=1, max_size=30),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
    st.integers(1, 7),
)
def test_the_selection_is_independent_of_order_and_batches(
    labels: list[str | None], most: int, random: Random, size: int
) -> None:
    crops = [noisy_crop(number, label=label) for number, label in enumerate(labels)]
    first = Preview(LABELS, seed=3, limit=most)
    first.add("train", as_table(crops, LABELS))
    random.shuffle(crops)
    other = Preview(LABELS, seed=3, limit=most)
    for start in range(0, len(crops), size):
        other.add("train", as_table(crops[start : start + size], LABELS))
    assert chosen(first) == chosen(other)
    assert len(chosen(first)) == min(most, len(crops))
    # As even as can be: a class has fewer than the largest share only if it has no more, or by one.
    kept, there = Counter(row["label"] for row in first.rows("train")), Counter(labels)
    for label, count in there.items():
        mine = kept[None if label is None else LABELS.index(label)]
        assert mine == count or mine >= max(kept.values()) - 1


def test_another_seed_selects_other_crops() -> None:
    table = as_table([noisy_crop(number) for number in range(40)])
    previews = [Preview([], seed=seed, limit=8) for seed in (0, 0, 1)]
    for preview in previews:
        preview.add("train", table)
    assert chosen(previews[0]) == chosen(previews[1]) != chosen(previews[2])


def test_the_images_hold_the_scaled_pixels_in_8_bit(tmp_path: Path) -> None:
    pixels = np.array([[-10, 0], [50, 1000]], np.int16)
    crop = Crop(pixels, Scaling(0.0, 100.0, applied=False), source="s", label="b", pixel_size_nm=(15.0, 20.0))
    preview = Preview(LABELS, seed=0)
    preview.add("test", as_table([crop], LABELS))
    preview.write(tmp_path)
    (row,) = pq.read_table(tmp_path / "preview/test.parquet").to_pylist()
    picture = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert picture.format == "PNG" and picture.mode == "L"
    assert np.asarray(picture).tolist() == [[0, 0], [128, 255]]
    assert row["label"] == 1 and row["pixel_size_nm"] == [15.0, 20.0] and "mask" not in row
    (sample,) = preview.samples()
    assert sample.label == "b" and sample.split == "test" and sample.image.tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize(("numbers", "shown"), [([0, 1, 7, 255], [0, 1, 7, 255]), ([0, 1, 255, 256], [0, 1, 255, 1])])
def test_masks_are_colour_images_with_the_numbers_as_pixels(
    tmp_path: Path, numbers: list[int], shown: list[int]
) -> None:
    mask = np.array(numbers, np.uint16).reshape(2, 2)
    crops = [noisy_crop(0, pixels=np.zeros((2, 2), np.uint8), mask=mask), noisy_crop(1)]
    preview = Preview([], seed=0)
    preview.add("train", as_table(crops[:1]))
    preview.add("test", as_table(crops[1:]))
    preview.write(tmp_path)
    (row,) = pq.read_table(tmp_path / "preview/train.parquet").to_pylist()
    picture = Image.open(io.BytesIO(row["mask"]["bytes"]))
    assert np.asarray(picture).ravel().tolist() == shown
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert colours[0].tolist() == [0, 0, 0] and len({tuple(colour) for colour in colours}) == len(set(shown))
    assert pq.read_table(tmp_path / "preview/test.parquet")["mask"].to_pylist() == [None]


def test_only_the_selected_crops_are_kept_in_memory() -> None:
    preview = Preview([], seed=0, limit=2)
    for start in range(0, 20, 4):
        preview.add("train", as_table([noisy_crop(number) for number in range(start, start + 4)]))
    rows = preview.rows("train")
    assert len(rows) == 2 and all(isinstance(row["pixels"], bytes) and len(row["pixels"]) == 64 for row in rows)
