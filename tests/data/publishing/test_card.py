from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.decoding import decode
from stedfm_hf.data.repository.layout import Crop
from stedfm_hf.data.splits import SplitFractions
from tests.data.assembled import FACTS, labelled_crops, noisy_crop, write_repo

ODD_LABELS = ("no", "1e3", "a: b", "x|y", "'quoted\"", "Ünïcode µm")


def pixels_by_place(crops: Sequence[Crop]) -> dict[tuple[str, int], np.ndarray]:
    return {(crop.source, crop.x): crop.pixels for crop in crops}


def loaded(repo: Path, tmp_path: Path, *config: str, **options: Any) -> Any:
    return datasets.load_dataset(str(repo), *config, cache_dir=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("labels", [("rings", "puncta"), ODD_LABELS, ()])
def test_datasets_loads_the_data_set(labels: tuple[str, ...], tmp_path: Path) -> None:
    crops = labelled_crops(24, labels) if labels else [noisy_crop(number) for number in range(24)]
    repo = tmp_path / "repo"
    write_repo(repo, crops)
    expected = pixels_by_place(crops)
    splits = loaded(repo, tmp_path)
    assert list(splits) == ["train", "validation", "test"] and sum(map(len, splits.values())) == 24
    for split in splits.values():
        if labels:
            assert split.features["label"] == datasets.ClassLabel(names=sorted(labels))
        batch = decode(split[:])
        for row, pixels in zip(split, batch["pixels"], strict=True):
            assert (pixels[0].numpy() == expected.pop((row["source"], row["x"]))).all()
            if labels:
                number = int(Path(row["source"]).stem)
                assert split.features["label"].int2str(row["label"]) == labels[number % len(labels)]
            else:
                assert row["label"] is None
    assert not expected
    streamed = loaded(repo, tmp_path, split="train", streaming=True)
    assert streamed.features == splits["train"].features
    assert [row["metadata"] for row in streamed] == splits["train"]["metadata"]


def test_the_preview_holds_images(tmp_path: Path) -> None:
    crops = labelled_crops(16)
    repo = tmp_path / "repo"
    write_repo(repo, crops)
    expected = pixels_by_place(crops)
    pictures = loaded(repo, tmp_path, "preview")
    assert list(pictures) == ["train", "validation", "test"]
    for row in pictures["train"]:
        picture = np.asarray(row["image"])
        assert any((picture == expected[row["source"], x]).all() for x in (0, 8))
    assert pictures["train"].features["label"].names == ["puncta", "rings"]
    assert datasets.get_dataset_config_names(str(repo)) == ["crops", "preview"]


def test_a_data_set_that_was_built_again_is_not_read_from_the_cache(tmp_path: Path) -> None:
    options: dict[str, Any] = {"fractions": SplitFractions(0.0, 0.0)}
    for folder, number in (("one", 1), ("one", 2), ("two", 3)):  # the cache knows the last name of a folder only
        crop = noisy_crop(number)
        write_repo(tmp_path / folder / "repo", [crop], **options)
        (row,) = loaded(tmp_path / folder / "repo", tmp_path, split="train")
        assert row["pixels"] == crop.pixels.tobytes()


def test_datasets_reports_a_missing_shard(tmp_path: Path) -> None:
    write_repo(tmp_path / "repo", labelled_crops(24))
    next((tmp_path / "repo/data").glob("train-*.parquet")).unlink()
    with pytest.raises(Exception, match="NonMatchingSplitsSizes|expected") as error:
        loaded(tmp_path / "repo", tmp_path)
    assert "train" in str(error.value)


def test_the_hub_reads_the_front_matter(tmp_path: Path) -> None:
    facts = dataclasses.replace(FACTS, licence="cc-by-4.0", simulated=True)
    mask = np.ones((8, 8), np.uint8)
    write_repo(tmp_path, [noisy_crop(number, label="rings", mask=mask) for number in range(8)], facts)
    data = DatasetCard((tmp_path / "README.md").read_text(encoding="utf-8")).data.to_dict()
    assert data["license"] == "cc-by-4.0" and data["pretty_name"] == "cells" and data["size_categories"] == "n<1K"
    assert {"microscopy", "sted", "super-resolution", "synthetic"} <= set(data["tags"])
    assert set(data["task_categories"]) == {
        "image-feature-extraction",
        "image-classification",
        "image-segmentation",
    }
    assert [config["config_name"] for config in data["configs"] if config.get("default")] == ["crops"]


def test_the_text_holds_only_known_facts(tmp_path: Path) -> None:
    facts = CardFacts(
        "cells",
        "stedfm data build",
        description="Axons of cultured neurons.",
        settings={"crop": 8, "stride": (8, 8), "labels": None, "a|b": "c\nd", "psf": {"nm": [45.0, 80.0], "x": True}},
        source_note="Recorded on our microscope.",
        mask_names={1: "ring"},
        limitations=("Only one dye was used.",),
    )
    write_repo(tmp_path / "known", labelled_crops(16), facts)
    known = (tmp_path / "known/README.md").read_text(encoding="utf-8")
    for words in (
        "Axons",
        "| stride | 8, 8 |",
        "| labels | not set |",
        "Recorded on",
        "Only one dye",
        "20 nm",
        "rings",
    ):
        assert words in known
    assert "not stated" in known and "license:" not in known and "are simulated" not in known
    crops = [noisy_crop(number, pixel_size_nm=None, foreground_fraction=None) for number in range(8)]
    write_repo(tmp_path / "unknown", crops, CardFacts("x", "stedfm data simulate", simulated=True))
    unknown = (tmp_path / "unknown/README.md").read_text(encoding="utf-8")
    assert "The pixel size is unknown" in unknown and "are simulated" in unknown and "nm |" not in unknown
    for card in (known, unknown):
        text = card.split("\n---\n", 1)[1]
        assert "None" not in text and "{{" not in card and "{%" not in card and str(tmp_path) not in card


def test_the_markdown_is_tidy_and_its_figures_exist(tmp_path: Path) -> None:
    write_repo(tmp_path, labelled_crops(16, ODD_LABELS))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and card.endswith("\n") and not card.endswith("\n\n")
    assert "\n\n\n" not in card and not re.search(r"[ \t]\n", card)
    for heading in re.findall(r"^##+ .+$", card, flags=re.MULTILINE):
        before, after = card.split(f"\n{heading}\n")
        assert before.endswith("\n") and after.startswith("\n")
    for table in re.findall(r"(?:^\|.*\|\n)+", card, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    pictures = re.findall(r"!\[[^\]]+\]\((.+?)\)", card)
    assert len(pictures) == 2
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_the_examples_are_valid_python_and_load_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repo(tmp_path / "PATH", labelled_crops(24))
    card = (tmp_path / "PATH/README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)
    assert (names["pixels"] == decode(names["crops"][0])["pixels"][0].numpy()).all()
    assert names["images"].shape == (8, 1, 8, 8) and float(names["images"].max()) <= 1.0
    assert next(iter(names["batches"]))["pixels"].shape == (8, 1, 8, 8)
