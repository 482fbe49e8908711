"""The record of training images: hashed, matched by source or content, and passed on to later models."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stedfm_hf.labels.labelled import from_arrays, read_labelled
from stedfm_hf.labels.training_sources import TRAINING_SOURCES_FILE, read_training_sources, write_training_sources
from stedfm_hf.runs import UserError
from tests.labels.labelled_data import class_folder


def test_images_are_matched_by_source_and_by_content(tmp_path: Path) -> None:
    data = read_labelled(class_folder(tmp_path / "set", {"a": 6, "b": 6}), source_pattern=r"\d+")["all"]
    write_training_sources(tmp_path, [data.take([0, 7])])  # a/000 and b/001
    record = read_training_sources(tmp_path)
    assert record is not None and "000" in record and "002" not in record
    assert np.flatnonzero(record.used(data)).tolist() == [0, 1, 6, 7], "all images of the sources"
    for number in range(6):
        shutil.move(tmp_path / "set" / "a" / f"00{number}.tif", tmp_path / "set" / "a" / f"renamed{number}.tif")
    renamed = read_labelled(tmp_path / "set", source_pattern=r"\w+$|\w\d(?=\.)|\w+/\w+")["all"]
    image_ids = renamed.image_ids[record.used(renamed)].tolist()
    assert image_ids == ["a/renamed0.tif", "b/001.tif"], "the contents are the same"


def test_the_record_contains_hashes_only(tmp_path: Path) -> None:
    data = from_arrays("d", [np.eye(4)] * 2, list("ab"), sources=["patient 7", "patient 8"])
    write_training_sources(tmp_path, [data])
    text = (tmp_path / TRAINING_SOURCES_FILE).read_text(encoding="utf-8")
    assert "patient" not in text and "patient 7" in (read_training_sources(tmp_path) or ())


def test_row_numbers_are_not_recorded_as_sources(tmp_path: Path) -> None:
    """Images without a source image id have the number of their row, which every data set has."""
    write_training_sources(tmp_path, [from_arrays("d", [np.eye(4)] * 4, list("abab"))])
    record = read_training_sources(tmp_path)
    assert record is not None and not record.ids


def test_a_model_keeps_the_record_of_the_model_it_started_from(tmp_path: Path) -> None:
    first = from_arrays("d", [np.eye(4)] * 2, list("ab"), sources=["one", "two"])
    second = from_arrays("d", [np.eye(4)] * 2, list("ab"), sources=["two", "three"])
    write_training_sources(tmp_path, [first])
    write_training_sources(tmp_path, [second], before=read_training_sources(tmp_path))
    record = read_training_sources(tmp_path)
    assert record is not None and len(record.ids) == 3 and all(name in record for name in ("one", "two", "three"))


def test_a_missing_record_is_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert read_training_sources("demo") is None and read_training_sources(tmp_path) is None
    assert read_training_sources("no-one/no-model") is None
    (tmp_path / TRAINING_SOURCES_FILE).write_text('{"ids": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"training_sources\.json is damaged"):
        read_training_sources(tmp_path)
