"""Assembly of parts into a data set: removal of copies, splits by source, all results or none."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedfm_hf.data.assembly import assemble as assembly
from stedfm_hf.data.assembly.assemble import assemble
from stedfm_hf.data.assembly.output import DatasetSummary, open_dataset, read_summary
from stedfm_hf.data.assembly.plan import WindowRows
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.assembly.write_window import write_window
from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.layout import Crop, Scaling
from stedfm_hf.data.repository.mask_names import read_mask_names
from stedfm_hf.data.repository.shards import OPEN_SHARDS, WindowWriter
from stedfm_hf.data.settings import ImportSetSettings
from stedfm_hf.data.splits import SplitFractions, split_of
from stedfm_hf.runs import ItemStatus, Manifest, UserError

SCALING = Scaling(0.0, 90.0, applied=True)


def image(
    item: str, rows: int = 2, *, source: str | None = None, content: str | None = None, **facts: Any
) -> StagedImage:
    return StagedImage(item, source or item, content or item, rows, **facts)


def stage(output: Path, *parts: list[StagedImage]) -> Staging:
    """Stage parts with these images; the pixels of a crop identify its image, and y is its number in the part."""
    staging, numbers = Staging(output), dict[str, int]()
    for number, images in enumerate(parts):
        crops: list[Crop] = []
        for each in images:
            value = numbers.setdefault(each.item, len(numbers))
            for _ in range(each.rows):
                pixels = np.full((4, 4), value, np.uint8)
                crops.append(Crop(pixels, SCALING, each.source, each.label, y=len(crops)))
        statuses = {each.item: ItemStatus("done") for each in images}
        staging.write_crops(part_name(number), crops, images, statuses)
    return staging


def run(staging: Staging, output: Path, **options: Any) -> DatasetSummary:
    arguments: dict[str, Any] = {"manifest": Manifest("data build"), "card": CardFacts("Test", "stedfm data build")}
    return assemble(staging, output, **arguments | {"fractions": SplitFractions(), "seed": 0} | options)


def sources_of(output: Path) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in output.glob("data/*.parquet"):
        found[path.name.split("-")[0]].update(pq.read_table(path)["source"].to_pylist())
    return dict(found)


def test_every_crop_of_every_part_is_in_the_repository(tmp_path: Path) -> None:
    parts = [[image(f"{part}{number}.tif", number % 4) for number in range(8)] for part in "abc"]
    summary = run(stage(tmp_path, *parts), tmp_path)
    assert sum(summary.crops.values()) == 3 * (0 + 1 + 2 + 3) * 2
    rows = datasets.load_dataset(str(tmp_path))
    assert {split: len(rows[split]) for split in rows} == summary.crops
    every = sorted((row["source"], row["y"]) for split in rows for row in rows[split])
    assert len(set(every)) == len(every) == 36
    assert summary.manifest.counts()["done"] == 24


def test_no_source_is_in_two_splits(tmp_path: Path) -> None:
    parts = [[image(f"{number}.tif[{series}]", source=f"s{number}") for number in range(40)] for series in range(3)]
    summary = run(stage(tmp_path, *parts), tmp_path, fractions=SplitFractions(0.2, 0.2))
    found = sources_of(tmp_path)
    assert set(found) == {"train", "validation", "test"}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 40
    assert summary.sources == {split: len(sources) for split, sources in found.items()}


def test_exact_copies_are_used_once_and_listed(tmp_path: Path) -> None:
    first = [image("a.tif", content="x"), image("two.msr", content="y"), image("two.msr", content="z")]
    second = [image("b.tif", content="x"), image("half.msr", content="y"), image("half.msr", content="w")]
    summary = run(stage(tmp_path, first, second), tmp_path, fractions=SplitFractions(0, 0))
    assert sources_of(tmp_path) == {"train": {"a.tif", "two.msr", "half.msr"}} and summary.crops == {"train": 8}
    assert summary.manifest.items["b.tif"] == ItemStatus("skipped", "exact copy of a.tif")
    assert summary.manifest.items["half.msr"].reason == "1 of 2 images are exact copies (two.msr)"
    assert summary.manifest.items["half.msr"].state == "done"


def test_images_without_content_are_never_copies(tmp_path: Path) -> None:
    images = [StagedImage(name, name, "", 1) for name in "ab"]
    assert run(stage(tmp_path, images), tmp_path, fractions=SplitFractions(0, 0)).crops == {"train": 2}


def test_labels_become_classes_in_their_order(tmp_path: Path) -> None:
    images = [image(f"{number}", label=["rings", "fibres", None][number % 3]) for number in range(9)]
    summary = run(stage(tmp_path, images), tmp_path, fractions=SplitFractions(0, 0))
    rows = datasets.load_dataset(str(tmp_path), split="train")
    assert rows.features["label"] == datasets.ClassLabel(names=["fibres", "rings"]) and summary.labels == (
        "fibres",
        "rings",
    )
    for row in rows:
        assert row["label"] == [1, 0, None][int(row["source"]) % 3]
    run(stage(tmp_path, images), tmp_path, fractions=SplitFractions(0, 0), labels=("rings", "fibres", "puncta"))
    assert datasets.load_dataset(str(tmp_path), split="train").features["label"].names == ["rings", "fibres", "puncta"]


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    images = [image(f"{number}", split=["train", "test", "pretrain"][number % 3]) for number in range(9)]
    run(stage(tmp_path, images), tmp_path)
    assert sources_of(tmp_path) == {"train": set("036"), "test": set("147"), "pretrain": set("258")}


def test_bytes_are_a_function_of_parts_and_seed(tmp_path: Path) -> None:
    images = [image(f"{number}", rows=5) for number in range(20)]

    def content(name: str, seed: int) -> dict[str, bytes]:
        output = tmp_path / name
        run(stage(output, images[:12], images[12:]), output, seed=seed, rows_per_shard=10)
        return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.parquet")}

    one = content("one", 0)
    assert one == content("two", 0)
    assert one != content("three", 1)
    train = sum(split_of(f"{number}") == "train" for number in range(20))
    assert len([name for name in one if name.startswith("data/train")]) == -(-5 * train // 10)


def test_an_interrupted_assembly_keeps_complete_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [image(f"{number}", rows=20) for number in range(20)]
    whole, output = tmp_path / "whole", tmp_path / "out"
    options: dict[str, Any] = {"rows_per_shard": 2, "seed": 5}
    run(stage(whole, images[:9], images[9:]), whole, **options)
    staging = stage(output, images[:9], images[9:])
    calls = list[WindowRows]()

    def writing(staging: Staging, folder: Path, rows: WindowRows, **options: Any) -> int:
        if len(calls) == 2:
            WindowWriter(folder, rows.window, pa.schema({"x": pa.int64()}), seed=0)  # as if it was killed in between
            raise OSError(28, "No space left on device")
        calls.append(rows)
        return write_window(staging, folder, rows, **options)

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "write_window", writing)
        with pytest.raises(OSError, match="No space left"):
            run(staging, output, **options)
        assert sorted(path.name for path in output.iterdir()) == [".assembled", ".staging"]
        assert len(calls) == 2 and len(list(output.glob(".assembled/data/train*"))) == 2 * OPEN_SHARDS
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            run(staging, output, **options)
    assert len(calls) == 2
    run(staging, output, **options)
    assert contents(output) == contents(whole)


def test_an_interrupted_assembly_with_other_settings_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = stage(tmp_path, [image("a"), image("b")])
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "write_card", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            run(staging, tmp_path)
    assert run(staging, tmp_path, fractions=SplitFractions(0, 0)).crops == {"train": 4}
    assert sorted(path.name for path in tmp_path.glob("data/*")) == ["train-00000-of-00001.parquet"]


@pytest.mark.slow
def test_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "ROWS_PER_PROCESS", 1)
    images = [image(f"{number}", rows=20, label="ab"[number % 2]) for number in range(20)]
    for workers in (1, 2):
        output = tmp_path / f"{workers}"
        run(stage(output, images[:9], images[9:]), output, rows_per_shard=2, processes=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def contents(output: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a data set."""
    files = (path for path in output.rglob("*") if path.is_file() and ".staging" not in path.parts)
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def test_the_index_lists_the_content_of_the_data_set(tmp_path: Path) -> None:
    images = [image(f"{number}", label="ab"[number % 2]) for number in range(8)]
    card = CardFacts("Test", "stedfm data build", mask_names={0: "background", 4: "puncta"})
    summary = run(stage(tmp_path, images), tmp_path, card=card)
    assert replace(read_summary(tmp_path, summary.manifest), notes=summary.notes) == summary
    assert read_mask_names(tmp_path) == {0: "background", 4: "puncta"}
    next((tmp_path / "data").glob("*")).unlink()
    with pytest.raises(UserError, match=r"data/.* is missing; .*--overwrite"):
        read_summary(tmp_path, summary.manifest)
    (tmp_path / "index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"index.json: damaged.*--overwrite"):
        read_summary(tmp_path, summary.manifest)
    assert read_mask_names(tmp_path) == {}


def test_a_repository_is_replaced_as_a_whole(tmp_path: Path) -> None:
    many = [image(f"{number}", rows=8) for number in range(10)]
    run(stage(tmp_path, many), tmp_path, rows_per_shard=8)
    run(stage(tmp_path, [image("a"), image("b")]), tmp_path, fractions=SplitFractions(0, 0))
    assert [path.name for path in tmp_path.glob("data/*")] == ["train-00000-of-00001.parquet"]
    assert list(json.loads((tmp_path / "index.json").read_text())["splits"]) == ["train"]
    assert [path.name for path in tmp_path.glob("preview/*")] == ["train.parquet"]


def test_the_message_about_zero_crops_has_the_reasons(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    statuses = {f"{number}.tif": ItemStatus("skipped", "no contrast") for number in range(3)} | {
        "x.tif": ItemStatus("failed", "empty")
    }
    staging.write_crops(part_name(0), [], [], statuses)
    with pytest.raises(UserError, match=r"no crop is left of 4 inputs \(3 x no contrast; 1 x empty\)"):
        with open_dataset(tmp_path, "data build", ImportSetSettings("a", "b", tmp_path)) as opened:
            run(staging, tmp_path, manifest=opened.manifest)
    assert json.loads((tmp_path / "manifest.json").read_text())["counts"] == {"done": 0, "failed": 1, "skipped": 3}
    assert not (tmp_path / "data").exists()


def test_images_with_another_number_of_crops_are_refused(tmp_path: Path) -> None:
    crop = Crop(np.zeros((2, 2), np.uint8), SCALING, "a")
    with pytest.raises(ValueError, match="1 crops were written, but the images have 2"):
        Staging(tmp_path).write_crops(part_name(0), [crop], [image("a")], {})
