"""Masks with planes, masks of fractions and regions: stored exactly, and read by all readers of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stedfm_hf.data import LocalCrops, decode, stream
from stedfm_hf.data.publishing.push import check_repository
from stedfm_hf.data.publishing.stats import dataset_stats
from stedfm_hf.data.repository.layout import Crop, crop_features, crops_to_table
from stedfm_hf.data.repository.planes import PLANE_COLUMNS
from stedfm_hf.labels.annotated import read_annotated
from stedfm_hf.runs import UserError
from tests.data.assembled import noisy_crop, write_repo

NAMES = ("rings", "fibres")
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
WHOLE = st.sampled_from(["bool", "uint8", "uint16"]).flatmap(lambda name: arrays.arrays(np.dtype(name), SHAPES))
FRACTIONS = st.one_of(
    arrays.arrays(np.float16, SHAPES, elements=st.floats(0, 1, width=16)),
    arrays.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32)),
)


def planes_crop(number: int, kind: str) -> Crop:
    rng = np.random.default_rng(number)
    planes = rng.integers(0, 2, (2, 8, 8)).astype(np.uint8) if kind == "multi_label" else rng.random((2, 8, 8))
    planes[:, 0, 0] = 1  # classes overlap
    region = None if number % 2 else rng.random((8, 8)) > 0.5
    return noisy_crop(number, mask=planes, mask_planes=NAMES, region=region)


@given(planes=st.one_of(WHOLE, FRACTIONS))
def test_planes_are_stored_exactly(planes: np.ndarray) -> None:
    names = tuple("abc"[: len(planes)])
    pixels = np.zeros(planes.shape[1:], np.uint8)
    crop = noisy_crop(0, pixels=pixels, mask=planes, mask_planes=names, region=planes[0] > 0)
    batch = decode(crops_to_table([crop, crop]))
    for row in batch["mask"].numpy():
        np.testing.assert_array_equal(row, planes.astype(np.float32 if planes.dtype.kind == "f" else np.uint16))
    assert batch["mask"].is_floating_point() == (planes.dtype.kind == "f")
    assert batch["mask_planes"] == [list(names)] * 2 and batch["region"].dtype == torch.bool
    np.testing.assert_array_equal(batch["region"][1].numpy(), planes[0] > 0)


def test_fractions_are_stored_in_16_bit_if_that_is_lossless() -> None:
    sizes = {}
    for name, value in (("quarter", 0.25), ("third", 1 / 3)):
        mask = np.full((1, 2, 3), value)
        crop = noisy_crop(0, pixels=np.zeros((2, 3), np.uint8), mask=mask, mask_planes=("votes",))
        table = crops_to_table([crop])
        sizes[name] = table["mask_dtype"][0].as_py()
        assert decode(table)["mask"].unique().tolist() == [np.float32(value)]
    assert sizes == {"quarter": "float16", "third": "float32"}


def test_a_table_of_plain_masks_has_no_columns_of_planes() -> None:
    plain = noisy_crop(0, mask=np.eye(8, dtype=np.uint8))
    assert crops_to_table([plain]).schema.names == list(crop_features())
    assert not set(PLANE_COLUMNS) & set(crop_features())
    mixed = crops_to_table([plain, planes_crop(1, "multi_label")])
    assert set(PLANE_COLUMNS) <= set(mixed.schema.names)
    assert decode(mixed.slice(0, 1))["mask"].tolist() == [np.eye(8).tolist()]
    with pytest.raises(UserError, match=r"masks with different planes \(no planes; rings, fibres\)"):
        decode(mixed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mask": np.zeros((3, 8, 8), np.uint8), "mask_planes": NAMES}, "with 2 names"),
        ({"mask": np.zeros((2, 8, 8), np.uint8)}, "with 0 names"),
        ({"mask": np.zeros((8, 8), np.uint8), "mask_planes": NAMES}, "with 2 names"),
        ({"region": np.zeros((4, 4), bool)}, "the region is"),
        ({"mask": np.full((2, 8, 8), 1.5), "mask_planes": NAMES}, "from 0 to 1"),
        ({"mask": np.full((2, 8, 8), np.nan), "mask_planes": NAMES}, "from 0 to 1"),
        ({"mask": np.full((2, 8, 8), -1), "mask_planes": NAMES}, "whole numbers"),
    ],
)
def test_invalid_masks_with_planes_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        crops_to_table([noisy_crop(0, **changes)])


@pytest.mark.parametrize("changes", [{"mask": b"12"}, {"region": b"12"}, {"mask_dtype": "complex64"}])
def test_damaged_rows_are_reported(changes: dict[str, Any]) -> None:
    row = crops_to_table([planes_crop(0, "soft")]).to_pylist()[0]
    with pytest.raises(UserError, match="damaged row"):
        decode(row | changes)


@pytest.mark.parametrize("kind", ["multi_label", "soft"])
def test_all_readers_read_a_data_set_with_planes(tmp_path: Path, kind: str) -> None:
    crops = {number: planes_crop(number, kind) for number in range(16)}
    crops[5] = noisy_crop(5)  # without a mask
    summary = write_repo(tmp_path / f"cells-{kind}", list(crops.values()))
    repo = str(summary.output)

    rows = datasets.load_dataset(repo, split="train")
    assert rows.features == crop_features(planes=True)
    pictures = datasets.load_dataset(repo, "preview", split="train")
    assert pictures.features["mask"] == datasets.Image() and pictures[0]["mask"].size == (8, 8)
    assert "`rings`, `fibres`" in (tmp_path / f"cells-{kind}" / "README.md").read_text(encoding="utf-8")
    check_repository(summary.output)

    record = dataset_stats(repo, output=tmp_path / "stats").record
    assert record["with_mask"] == 15 and record["with_region"] == 8
    assert record["mask_planes"] == [{"names": list(NAMES), "crops": 15}]

    splits = read_annotated(repo)
    assert {len(data) for data in splits.values()} and sum(len(data.without_mask) for data in splits.values()) == 1
    for data in splits.values():
        assert (data.target_type, data.classes) == (kind, NAMES)
        for number in range(len(data)):
            image = data.stored(number).array[0]
            (crop,) = [each for each in crops.values() if np.array_equal(each.pixels, image)]
            assert crop.mask is not None
            target, region = data.annotation(number)
            np.testing.assert_array_equal(target, crop.mask.astype(np.float32))
            assert target.dtype == (np.uint8 if kind == "multi_label" else np.float32)
            assert (region is None) == (crop.region is None)
            if crop.region is not None:
                np.testing.assert_array_equal(region, crop.region)

    batches = stream(repo, "train", batch_size=4, seed=0, rank=0, world_size=1, columns=("mask", "region"))
    for batch in batches:
        assert batch["mask"].shape == (4, 2, 8, 8) and batch["region"].shape == (4, 8, 8)
        assert not {"mask_planes", "mask_dtype"} & set(batch)
    local = LocalCrops(repo, "train", columns=("mask",))[[0, 1]]
    assert local["mask"].shape == (2, 2, 8, 8)


def test_a_data_set_of_plain_masks_has_no_columns_of_planes(tmp_path: Path) -> None:
    summary = write_repo(tmp_path / "plain", [noisy_crop(n, mask=np.eye(8, dtype=np.uint8)) for n in range(8)])
    for path in summary.output.glob("data/*.parquet"):
        assert pq.read_schema(path).names == list(crop_features())
    found = read_annotated(summary.output)["train"]
    assert found.target_type == "single_label" and found.region(0) is None
    with pytest.raises(UserError, match="unknown column 'region'"):
        stream(str(summary.output), batch_size=1, seed=0, rank=0, world_size=1, columns=("region",))


def test_a_damaged_mask_with_planes_fails_and_the_others_are_read(tmp_path: Path) -> None:
    summary = write_repo(tmp_path / "cells", [planes_crop(n, "multi_label") for n in range(8)])
    path = sorted(summary.output.glob("data/train-*.parquet"))[0]
    table = pq.read_table(path)
    masks = table["mask"].to_pylist()
    masks[0] = b"123"
    place = table.schema.get_field_index("mask")
    pq.write_table(table.set_column(place, table.schema.field("mask"), [masks]), path, row_group_size=1)
    found = read_annotated(summary.output)["train"]
    assert [reason for reason in found.failed.values() if "a mask of 3 bytes for 2 planes" in reason]
