from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stedfm_hf.cli import main
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.publishing.stats import dataset_stats
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.runs import UserError
from tests.data.assembled import as_table, labelled_crops, noisy_crop, write_repo
from tests.figures import plotted_figures


def unit(crop: Crop) -> np.ndarray:
    """Return the scaled pixels by the formula."""
    low, high = crop.scaling.low, crop.scaling.high
    if crop.scaling.applied:
        low, high = 0.0, float(np.iinfo(crop.pixels.dtype).max) if crop.pixels.dtype.kind in "iu" else 1.0
    assert low is not None and high is not None
    pixels = np.nan_to_num(crop.pixels.astype(np.float64), nan=low)
    return np.clip((pixels - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(pixels.shape)


@st.composite
def any_crops(draw: st.DrawFn) -> list[Crop]:
    crops = []
    for number in range(draw(st.integers(1, 6))):
        dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "int32", "float32"]))
        shape = draw(st.sampled_from([(3, 4), (2, 2)]))
        low = draw(st.integers(-20, 20))
        elements = st.integers(0, 200) if dtype.startswith("u") else st.integers(-200, 200)
        crops.append(
            Crop(
                draw(arrays.arrays(dtype, shape, elements=elements)),
                Scaling(float(low), float(low + draw(st.integers(0, 150))), applied=draw(st.booleans())),
                source=f"s{number}",
                label=draw(st.sampled_from([None, "a", "b"])),
            )
        )
    return crops


@given(any_crops())
def test_mean_sd_and_histogram_are_those_of_the_scaled_pixels(crops: list[Crop]) -> None:
    statistics = Statistics(["a", "b"])
    statistics.add("train", as_table(crops, ["a", "b"]))
    record = statistics.to_json()
    for label, summary in {None: record["intensity"], **record["labels"]}.items():
        chosen = [unit(crop).ravel() for crop in crops if label in (None, crop.label)]
        if chosen:
            pixels = np.concatenate(chosen)
            assert summary["mean"] == pytest.approx(pixels.mean(), abs=2e-6)
            assert summary["sd"] == pytest.approx(pixels.std(), abs=2e-5)
            if label is None:
                assert sum(summary["histogram"]) == pixels.size
                coarse = np.asarray(summary["histogram"]) @ np.arange(256) / 255 / pixels.size
                assert coarse == pytest.approx(pixels.mean(), abs=1 / 255)
        else:
            assert summary["mean"] is None
    json.dumps(record, allow_nan=False)


@given(any_crops(), st.integers(1, 5))
def test_statistics_are_independent_of_batches(crops: list[Crop], size: int) -> None:
    whole, parts = Statistics(["a", "b"]), Statistics(["a", "b"])
    table = as_table(crops, ["a", "b"])
    whole.add("train", table)
    for start in range(0, len(crops), size):
        parts.add("train", table.slice(start, size))
    one, other = whole.to_json(), parts.to_json()
    assert one["intensity"]["histogram"] == other["intensity"]["histogram"]
    assert {k: v for k, v in one.items() if k in ("crops", "sizes", "dtypes", "sources", "pixel_bytes")} == {
        k: v for k, v in other.items() if k in ("crops", "sizes", "dtypes", "sources", "pixel_bytes")
    }


def test_counts_of_labels_splits_and_sources() -> None:
    crops = [*labelled_crops(8), noisy_crop(8), noisy_crop(9, pixel_size_nm=None, foreground_fraction=None)]
    statistics = Statistics(["rings", "puncta", "never"])
    statistics.add("test", as_table(crops[:4], ["rings", "puncta", "never"]))
    statistics.add("train", as_table(crops[4:], ["rings", "puncta", "never"]))
    record = statistics.to_json()
    assert list(record["splits"]) == ["train", "test"]
    assert record["splits"]["train"]["labels"] == {"rings": 2, "puncta": 2, "never": 0}
    assert record["splits"]["train"]["sources"] == 3 and record["sources"]["total"] == 5
    assert record["labels"]["rings"]["crops"] == 4 and record["unlabelled"] == 2
    assert record["pixel_sizes_nm"] == [{"y": 20.0, "x": 20.0, "crops": 9}]
    assert record["foreground_fraction"]["0.5"] == 0.25 and record["scaled"] == 10 and record["with_mask"] == 0


def test_a_source_in_two_splits_is_counted() -> None:
    statistics = Statistics([])
    statistics.add("train", as_table([noisy_crop(0), noisy_crop(2)]))
    statistics.add("test", as_table([noisy_crop(1), noisy_crop(4)]))
    shared = statistics.to_json()["sources"]
    assert shared == {"total": 3, "shared_between_splits": 1, "examples": ["folder/0.tif"]}


def test_nan_pixels_count_as_zero() -> None:
    pixels = np.array([[np.nan, np.inf], [-np.inf, 0.5]], np.float32)
    statistics = Statistics([])
    statistics.add("train", as_table([Crop(pixels, Scaling(0, 1, applied=True), source="s")]))
    assert statistics.to_json()["intensity"]["mean"] == pytest.approx(1.5 / 4)


def test_the_statistics_of_a_data_set_are_those_of_its_build(tmp_path: Path) -> None:
    crops = labelled_crops(24)
    write_repo(tmp_path / "repo", crops)
    with plotted_figures():
        record = dataset_stats(tmp_path / "repo", output=tmp_path / "out").record
    statistics = Statistics(["puncta", "rings"])
    statistics.add("train", as_table(crops, ["puncta", "rings"]))
    expected = statistics.to_json()
    assert record["crops"] == 24 and record["sources"]["shared_between_splits"] == 0
    assert record["intensity"]["histogram"] == expected["intensity"]["histogram"]
    assert {name: each["crops"] for name, each in record["labels"].items()} == {"puncta": 12, "rings": 12}
    assert json.loads((tmp_path / "out/stats.json").read_text()) == record
    for name in ("histogram", "contact_sheet"):
        assert (tmp_path / f"out/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"out/{name}.svg").read_text(encoding="utf-8")
    written = (tmp_path / "out/stats.json").stat().st_mtime_ns
    assert dataset_stats(tmp_path / "repo", output=tmp_path / "out").record == record
    assert (tmp_path / "out/stats.json").stat().st_mtime_ns == written, "measured again for nothing"
    write_repo(tmp_path / "other", labelled_crops(8))
    with pytest.raises(UserError, match="other settings"):
        dataset_stats(tmp_path / "other", output=tmp_path / "out")
    assert dataset_stats(tmp_path / "other", output=tmp_path / "out", overwrite=True).record["crops"] == 8


def test_the_command_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_repo(tmp_path / "repo", labelled_crops(16))
    assert main(["data", "stats", str(tmp_path / "repo")]) == 0
    printed = capsys.readouterr().out
    for words in ("rings", "source images", "8 x 8", "20 nm", "uint8"):
        assert words in printed
    assert main(["data", "stats", str(tmp_path / "repo"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["crops"] == 16


def test_other_folders_are_refused(tmp_path: Path) -> None:
    for repo, words in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "texts", "no Parquet")):
        if repo.name == "texts":
            repo.mkdir()
            (repo / "notes.txt").write_text("hello", encoding="utf-8")
        with pytest.raises(UserError, match=words):
            dataset_stats(repo)
    other = tmp_path / "other"
    other.mkdir()
    pa.parquet.write_table(pa.table({"text": ["hello"]}), other / "train.parquet")
    with pytest.raises(UserError, match="has no column pixels"):
        dataset_stats(other)


def test_a_truncated_shard_is_reported(tmp_path: Path) -> None:
    write_repo(tmp_path / "repo", labelled_crops(16))
    shard = next((tmp_path / "repo/data").glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(UserError, match=shard.name):
        dataset_stats(tmp_path / "repo")
