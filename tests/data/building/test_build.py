"""Building a data set: its rows, and the reasons to skip files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from stedfm_hf.cli import main
from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.splits import split_of
from stedfm_hf.runs import UserError
from tests.data.building.small_fields import NO_SPLIT, make, reasons, rows_of, source_of, spots, write

# ------------------------------------------------------------------------------------- rows


def test_rows_hold_the_scaled_crops_of_the_grid(tmp_path: Path) -> None:
    field = spots(1)
    summary = make(write(tmp_path / "in", cell=field), tmp_path / "out", **NO_SPLIT)
    low, high = np.quantile(field, (0.001, 0.999))
    expected = (np.clip((field - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    rows = rows_of(tmp_path / "out")
    assert summary.crops == {"train": 12}
    assert [(row["y"], row["x"]) for row in rows] == [(y, x) for y in (0, 32, 38) for x in (0, 32, 64, 68)]
    source = source_of(tmp_path / "in/cell.tif")
    for row in rows:
        np.testing.assert_array_equal(row["array"], expected[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32])
        assert (row["source"], row["label"], row["mask"], row["channel"]) == (source, None, None, "0")
        assert row["pixel_size_nm"] == pytest.approx([20.0, 20.0])
        assert 0.01 < row["foreground_fraction"] < 0.5
        assert (row["intensity_low"], row["intensity_high"]) == (0.0, 255.0)
        scaling = {"applied": True, "low": low, "high": high, "quantiles": [0.001, 0.999]}
        assert json.loads(row["scaling"]) == scaling
    assert reasons(tmp_path / "out") == {"cell.tif": ("done", f"1 of 1 images, 12 of 12 crops; source {source}")}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "int8", "float16", "int64"])
def test_raw_pixels_are_those_of_the_file(tmp_path: Path, dtype: str) -> None:
    field = spots(2).clip(0, 100).astype(dtype)
    if np.dtype(dtype).kind != "u":
        field -= np.array(7, dtype)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/cell.npy", field)
    make(tmp_path / "in", tmp_path / "out", pixels="raw", stride=20, **NO_SPLIT)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 15
    wider = {"int8": "int16", "float16": "float32", "int64": "int32"}
    assert {row["dtype"] for row in rows} == {wider.get(dtype, dtype)}
    for row in rows:
        np.testing.assert_array_equal(row["array"], field[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32])
        low, high = np.quantile(field.astype(np.float64), (0.001, 0.999))
        assert (row["intensity_low"], row["intensity_high"]) == (low, high)
        assert json.loads(row["scaling"])["applied"] is False


def test_datasets_loads_a_build_and_decode_gives_tensors(tmp_path: Path) -> None:
    fields = {f"{label}__{n}": spots(n + 10 * k) for k, label in enumerate(("actin", "tubulin")) for n in range(6)}
    folder = write(tmp_path / "in", **fields)
    summary = make(folder, tmp_path / "out", labels="folder", validation=0.3, test=0.3, pixels="raw")
    assert summary.labels == ("actin", "tubulin")
    loaded = datasets.load_dataset(str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in loaded.items()} == summary.crops
    assert loaded["train"].features["label"].names == ["actin", "tubulin"]
    sources = {split: set(rows["source"]) for split, rows in loaded.items()}
    assert not sources["train"] & (sources["validation"] | sources["test"])
    assert not sources["validation"] & sources["test"]
    by_source = {source_of(folder / path): path for path in summary.manifest.items}
    for row in datasets.load_dataset(str(tmp_path / "out"), split="test", streaming=True):
        path, decoded = by_source[row["source"]], decode(row)
        pixels = tifffile.imread(folder / path)[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
        np.testing.assert_array_equal(decoded["pixels"][0].numpy(), pixels)
        assert summary.labels[decoded["label"]] == path.split("/")[0]


def test_names_and_free_text_are_written_only_on_request(tmp_path: Path) -> None:
    field = spots(3)
    (tmp_path / "in/ada lovelace").mkdir(parents=True)
    path = tmp_path / "in/ada lovelace/by_ada_2026.tif"
    tifffile.imwrite(path, field, imagej=True, metadata={"Info": "user: Ada Lovelace", "unit": "um"})
    arrays: dict[str, Any] = {"C:/Users/Ada/cell.lif": field + 1, "STED {1}": field + 2}
    np.savez(tmp_path / "in/ada lovelace/x.npz", **arrays)
    make(tmp_path / "in", tmp_path / "plain", **NO_SPLIT)
    rows = rows_of(tmp_path / "plain")
    text = str([{key: value for key, value in row.items() if key not in ("pixels", "array")} for row in rows]).lower()
    assert "lovelace" not in text and "by_ada" not in text and "users" not in text
    assert {row["series"] for row in rows} == {"image", "series 0", "STED {1}"}
    make(tmp_path / "in", tmp_path / "open", **NO_SPLIT, keep_names=True, keep_metadata=True)
    rows = rows_of(tmp_path / "open")
    assert {row["source"] for row in rows} == {"ada lovelace/by_ada_2026.tif", "ada lovelace/x.npz"}
    assert "C:/Users/Ada/cell.lif" in {row["series"] for row in rows}
    assert json.loads(rows[0]["metadata"])["imagej"]["Info"] == "user: Ada Lovelace"
    for repo in ("plain", "open"):
        for file in (tmp_path / repo).rglob("*.*"):
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_channels_and_planes_are_images_of_one_source(tmp_path: Path) -> None:
    stack = spots(4, (3, 2, 40, 40))
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    make(tmp_path / "stack.tif", tmp_path / "out", **NO_SPLIT)
    rows = rows_of(tmp_path / "out")
    found = {(row["series"], row["channel"]) for row in rows}
    assert found == {(f"image[z={z}]", str(c)) for z in range(3) for c in range(2)}
    assert len({row["source"] for row in rows}) == 1
    assert json.loads(rows[0]["metadata"])["plane"] == {"z": 0}
    make(tmp_path / "stack.tif", tmp_path / "one", series="*z=1]", channel=1, **NO_SPLIT)
    assert {(row["series"], row["channel"]) for row in rows_of(tmp_path / "one")} == {("image[z=1]", "1")}
    (status,) = reasons(tmp_path / "one").values()
    assert status[1].startswith("1 of 6 images, 4 of 4 crops")
    assert "4 x series is not '*z=1]'; 1 x channel is not 1" in status[1]


def test_exact_copies_are_used_once(tmp_path: Path) -> None:
    field = spots(5)
    write(tmp_path / "in", a=field, b=spots(6))
    np.save(tmp_path / "in/copy.npy", field)
    np.savez(tmp_path / "in/some.npz", copy=field, other=spots(7))
    summary = make(tmp_path / "in", tmp_path / "out", **NO_SPLIT)
    assert summary.crops == {"train": 36}
    states = reasons(tmp_path / "out")
    assert states["copy.npy"] == ("skipped", "exact copy of a.tif")
    assert states["some.npz"][0] == "done"
    assert "1 of 2 images are exact copies (a.tif)" in states["some.npz"][1]
    assert "source" in states["some.npz"][1]


def test_masks_are_cropped_like_the_images(tmp_path: Path) -> None:
    mask = np.arange(70 * 100, dtype=np.uint16).reshape(70, 100)
    write(tmp_path / "in", a=spots(8), b_image=spots(9), c=spots(10))
    write(tmp_path / "masks", a=mask, b_mask=(mask % 3).astype(np.uint8))
    summary = make(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks", keep_names=True, **NO_SPLIT)
    for row in rows_of(tmp_path / "out"):
        cut = mask[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
        expected = {"a.tif": cut, "b_image.tif": cut % 3, "c.tif": None}[row["source"]]
        if expected is None:
            assert row["mask"] is None
        else:
            np.testing.assert_array_equal(decode(row)["mask"].numpy(), expected)
    assert summary.manifest.options["files_without_mask"] == 1
    assert reasons(tmp_path / "out")["c.tif"][1].endswith("no mask")


def test_fields_are_resampled_to_one_pixel_size_with_their_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(11).poisson(20.0, (80, 120)).astype(np.uint16)  # half of it is foreground
    write(tmp_path / "in", a=noise[:40, :60])  # 20 nm
    np.save(tmp_path / "in/b.npy", noise)  # has no pixel size
    mask = np.zeros((40, 60), np.uint8)
    mask[:20] = 7
    write(tmp_path / "masks", a=mask)
    options: dict[str, Any] = {"pixel_size_nm": 10.0, "masks": tmp_path / "masks", "keep_names": True}
    make(tmp_path / "in", tmp_path / "out", **options, **NO_SPLIT)
    rows = rows_of(tmp_path / "out")
    assert {(row["y"], row["x"]) for row in rows} == {(y, x) for y in (0, 32, 48) for x in (0, 32, 64, 88)}
    for row in rows:
        assert row["pixel_size_nm"] == [10.0, 10.0]
        expected = np.repeat(np.repeat(mask, 2, 0), 2, 1)[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
        np.testing.assert_array_equal(decode(row)["mask"].numpy(), expected)
    assert reasons(tmp_path / "out")["b.npy"] == (
        "skipped",
        "no pixel size in the file (give --assume-pixel-size-nm)",
    )
    make(tmp_path / "in", tmp_path / "all", **options, assume_pixel_size_nm=10.0, pixels="raw", **NO_SPLIT)
    kinds = {row["source"]: row["dtype"] for row in rows_of(tmp_path / "all")}
    assert kinds == {"a.tif": "float32", "b.npy": "uint16"}  # b has the requested size already


# ------------------------------------------------------------------------------------- skipped and failed files


def test_every_file_has_a_status(tmp_path: Path) -> None:
    write(tmp_path / "in", good=spots(13), small=spots(14, (31, 90)), flat=np.full((64, 64), 9, np.uint16))
    dark = np.zeros((64, 320), np.uint16)
    dark[:, 300:] = spots(15, (64, 20))
    write(tmp_path / "in", dark=np.pad(dark, ((0, 0), (0, 64))), some=spots(16))
    (tmp_path / "in/broken.tif").write_bytes(b"II*\x00rubbish")
    (tmp_path / "in/notes.txt").write_text("no image")
    summary = make(tmp_path / "in", tmp_path / "out", **NO_SPLIT)
    states = reasons(tmp_path / "out")
    assert {item: state for item, (state, _) in states.items()} == {
        "good.tif": "done",
        "some.tif": "done",
        "dark.tif": "done",
        "small.tif": "skipped",
        "flat.tif": "skipped",
        "broken.tif": "failed",
    }
    assert states["small.tif"][1] == "height or width is below the crop size of 32 pixels (--crop-size)"
    assert states["flat.tif"][1] == "no contrast"
    assert "2 of 24 crops" in states["dark.tif"][1]
    assert "damaged or truncated" in states["broken.tif"][1]
    assert str(tmp_path) not in json.dumps(states)
    assert summary.manifest.options["skipped_files"] == {".txt": 1}
    assert summary.manifest.exit_status == 1


def test_images_are_selected_by_signal_to_noise_ratio_and_crops_by_foreground(tmp_path: Path) -> None:
    write(tmp_path / "in", a=spots(17), b=np.random.default_rng(0).poisson(20.0, (70, 100)).astype(np.uint16))
    make(tmp_path / "in", tmp_path / "all", **NO_SPLIT, keep_names=True)
    ratio = {row["source"]: json.loads(row["metadata"])["snr"] for row in rows_of(tmp_path / "all")}
    between = (ratio["a.tif"] + ratio["b.tif"]) / 2
    assert ratio["a.tif"] > ratio["b.tif"]
    make(tmp_path / "in", tmp_path / "bright", snr=(between, 1e9), **NO_SPLIT)
    assert reasons(tmp_path / "bright")["b.tif"][0] == "skipped"
    assert "signal-to-noise" in reasons(tmp_path / "bright")["b.tif"][1]
    with pytest.raises(UserError, match="no crop is left of 2 inputs"):
        make(tmp_path / "in", tmp_path / "none", min_foreground=0.9)


def test_the_reference_protocol_selects_series_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    arrays: dict[str, Any] = {name: spots(n, (240, 240)) for n, name in enumerate(("STED_1", "Conf", "STED overview"))}
    np.savez(tmp_path / "in/x.npz", **arrays)
    options: dict[str, Any] = {"protocol": "reference", "crop_size": 224}
    summary = make(tmp_path / "in", tmp_path / "out", **options, **NO_SPLIT)
    assert {row["series"] for row in rows_of(tmp_path / "out")} == {"STED_1"}
    assert summary.crops == {"train": 4}
    assert summary.manifest.settings["min_foreground"] == 0.001


def test_a_table_with_missing_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in", a=spots(21), b=spots(22), c__d=spots(23))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.tif,x\nd.tif,y\ngone.tif,z\n", encoding="utf-8")
    summary = make(tmp_path / "in", tmp_path / "out", labels=table, **NO_SPLIT)
    assert summary.labels == ("x", "y")
    assert summary.manifest.items["b.tif"].reason == "has no row in the table of labels"
    assert summary.manifest.options["label_rows_without_file"] == 1
    assert "warning: 1 path in the table of labels match no file, such as gone.tif" in capsys.readouterr().err
    every = make(tmp_path / "in", tmp_path / "all", labels=table, keep_unlabelled=True, **NO_SPLIT)
    assert every.manifest.counts() == {"done": 3, "failed": 0, "skipped": 0}
    assert {row["label"] for row in rows_of(tmp_path / "all")} == {0, 1, None}


def test_an_image_with_a_mask_of_another_size_fails(tmp_path: Path) -> None:
    write(tmp_path / "in", a=spots(24), b=spots(25))
    write(tmp_path / "masks", a=np.zeros((70, 99), np.uint8), b=np.ones((70, 100), np.uint8))
    make(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks", **NO_SPLIT)
    state, reason = reasons(tmp_path / "out")["a.tif"]
    assert state == "failed"
    assert reason == "its mask a.tif has 70 x 99 pixels, but series 'image' has 70 x 100; give a mask of the same size"
    assert reasons(tmp_path / "out")["b.tif"][0] == "done"
    with pytest.raises(
        UserError, match=r"no mask found for any .*save the mask of `a\.tif` as `a\.\*` or `a_mask\.\*`"
    ):
        make(tmp_path / "in", tmp_path / "none", masks=write(tmp_path / "others", z=spots(0)))


def test_the_message_about_zero_crops_has_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "in", a=spots(26, (20, 20)), b=np.zeros((64, 64), np.uint16))
    assert (
        main(["data", "build", str(folder), "--output", str(tmp_path / "out"), "--crop-size", "32", "--workers", "1"])
        == 2
    )
    message = capsys.readouterr().err.splitlines()[-1]
    too_small = "height or width is below the crop size of 32 pixels (--crop-size)"
    assert f"no crop is left of 2 inputs (1 x {too_small}; 1 x no contrast)" in message

    assert len(reasons(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pixels": "16bit"}, "pixels '16bit' is unknown"),
        ({"protocol": "reference", "min_foreground": 0.1}, "sets min_foreground to 0.001"),
        ({"pixel_size_nm": 0.0}, "must be above 0"),
        ({"min_size": 8}, "below the crop size"),
        ({"workers": 0}, "at least 1"),
        ({"snr": (3.0, 1.0)}, "snr 3.0 1.0 is not a range"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make(write(tmp_path / "in", a=spots(27)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_line_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "in", **{f"{n}": spots(n) for n in range(10)})
    words = ["data", "build", str(folder), "--crop-size", "32", "--workers", "1", "--output"]
    assert main([*words, str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith("out: 120 crops (96 train, 12 validation, 12 test)\n")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    assert main([*words, str(tmp_path / "two"), "--json", "--snr", "0", "1e9"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["done"], result["failed"], result["skipped"]) == (10, 1, 0)
    assert result["crops"] == {"train": 96, "validation": 12, "test": 12}


@pytest.mark.parametrize("keep_names", [False, True])
def test_the_bytes_of_a_file_decide_its_split_and_its_name_does_not(tmp_path: Path, keep_names: bool) -> None:
    folder = write(tmp_path / "in", **{f"n{number}": spots(number, shape=(32, 32)) for number in range(12)})
    make(folder, tmp_path / "out", keep_names=keep_names, seed=3)
    for path in (tmp_path / "out" / "data").glob("*.parquet"):
        for source in pq.read_table(path)["source"].to_pylist():
            file = folder / source if keep_names else None
            assert path.name.split("-")[0] == split_of(source_of(file) if file else source)
