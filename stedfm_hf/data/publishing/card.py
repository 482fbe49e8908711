"""The card of a data set: `README.md`, with the front matter that the Hub and `datasets` read, and figures."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Features
from huggingface_hub import DatasetCardData

from stedfm_hf.cards import render_dataset_card
from stedfm_hf.data.publishing.preview import Preview
from stedfm_hf.data.publishing.statistics import Statistics
from stedfm_hf.data.repository.layout import CONFIG, PREVIEW, crop_features, preview_name
from stedfm_hf.runs import atomic_path

CARD_FILE = "README.md"
FIGURES = "figures"
_TAGS = ("microscopy", "sted", "super-resolution", "fluorescence", "biology", "stedfm")
_LARGEST_SVG = 1_000_000
_Split = dict[str, Any]
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside what is in the data; nothing that is unknown is said.

    Args:
        title: title of the card, such as the name of the folder.
        command: the command that made it, such as stedfm data build.
        description: sentences about what is shown; Markdown.
        settings: what was chosen, by the name of the option; no absolute paths and no names of people.
        simulated: whether the images were computed, not recorded.
        source_note: where the images come from; Markdown. None if that is not known.
        licence: its identifier on the Hub, such as `cc-by-4.0`; None if it is not known.
        mask_names: what the numbers in the masks mean, if that is known.
        limitations: Further sentences for the section Limitations.
    """

    title: str
    command: str
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False
    source_note: str | None = None
    licence: str | None = None
    mask_names: Mapping[int, str] = field(default_factory=dict)
    limitations: tuple[str, ...] = ()


def write_card(folder: Path, facts: CardFacts, statistics: Statistics, preview: Preview) -> None:
    """Writes `README.md` and `figures/` into a repository whose shards and preview are there.

    Args:
        folder: the repository.
        facts: what the data do not say themselves.
        statistics: of all rows.
        preview: as it was written.
    """
    # matplotlib takes a while to import, and a process that only cuts crops does not need it.
    from stedfm_hf.data.publishing.figures import CONTACT_SHEET, HISTOGRAM, write_figures
    from stedfm_hf.data.publishing.summary import count_table, pixel_table

    record = statistics.to_json()
    for picture in write_figures(folder / FIGURES, record, preview.samples()):
        vector = picture.with_suffix(".svg")
        if vector.stat().st_size > _LARGEST_SVG:
            vector.unlink()
    card = render_dataset_card(
        _front_matter(folder, facts, record, statistics, preview),
        facts=facts,
        settings={name: _in_words(value) for name, value in facts.settings.items()},
        record=record,
        counts=count_table(record, most_labels=50),
        pixels=pixel_table(record),
        example=_example(record),
        contact_sheet=f"{FIGURES}/{CONTACT_SHEET}.png",
        histogram=f"{FIGURES}/{HISTOGRAM}.png",
    )
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(card, encoding="utf-8", newline="\n")


def _front_matter(
    folder: Path, facts: CardFacts, record: dict[str, Any], statistics: Statistics, preview: Preview
) -> DatasetCardData:
    labelled, masked = bool(record["labels"]), bool(record["with_mask"])
    tasks = ["image-feature-extraction"]
    tasks += ["image-classification"] * labelled + ["image-segmentation"] * masked
    crops: list[_Split] = [
        {"name": split, "num_bytes": size, "num_examples": record["splits"][split]["crops"]}
        for split, size in statistics.memory.items()
    ]
    pictures: list[_Split] = [
        {
            "name": split,
            "num_bytes": (folder / preview_name(split)).stat().st_size,
            "num_examples": len(preview.rows(split)),
        }
        for split in statistics.splits
    ]
    features = crop_features(statistics.labels, planes=statistics.planes)
    shards, previews = (sorted(folder.glob(f"{name}/*.parquet")) for name in ("data", "preview"))
    return DatasetCardData(
        license=facts.licence,
        pretty_name=facts.title,
        task_categories=tasks,
        tags=[*_TAGS, *(["synthetic"] if facts.simulated else [])],
        size_categories=next((name for most, name in _SIZES if record["crops"] < most), "n>10M"),
        configs=[
            {
                "config_name": CONFIG,
                "version": _version(shards),
                "default": True,
                "data_files": _files("data/{}-*.parquet", crops),
            },
            {
                "config_name": PREVIEW,
                "version": _version(previews),
                "data_files": _files("preview/{}.parquet", pictures),
            },
        ],
        dataset_info=[
            _info(CONFIG, features, crops, sum(path.stat().st_size for path in shards)),
            _info(PREVIEW, preview.features, pictures, sum(split["num_bytes"] for split in pictures)),
        ],
    )


def _version(files: Sequence[Path]) -> str:
    """A version that tells contents apart.

    The `datasets` library keeps the rows of a local folder in a cache that knows the folder's name and the front
    matter, and nothing else of the files: without this, a data set built anew would be read as it was before.
    """
    checksum = 0
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
    return f"1.0.{checksum}"


def _files(pattern: str, splits: Sequence[_Split]) -> list[dict[str, str]]:
    return [{"split": split["name"], "path": pattern.format(split["name"])} for split in splits]


def _info(config: str, features: Features, splits: Sequence[_Split], download_size: int) -> dict[str, Any]:
    return {
        "config_name": config,
        "features": features._to_yaml_list(),
        "splits": list(splits),
        "download_size": download_size,
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _in_words(value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_in_words(each)}" for name, each in value.items())
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return ", ".join(map(_in_words, value)) or "none"
    return str(value)


def _example(record: dict[str, Any]) -> dict[str, Any]:
    """What the code in the card shows: the first split, and the most frequent kind of crop."""
    size = record["sizes"][0]
    return {
        "split": next(iter(record["splits"])),
        "height": size["height"],
        "width": size["width"],
        "dtype": next(iter(record["dtypes"])),
        "one_kind": len(record["sizes"]) == 1 and len(record["dtypes"]) == 1,
    }
