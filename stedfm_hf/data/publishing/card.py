"""Card of a data set: `README.md` with the front matter that the Hub and `datasets` read, and figures."""

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
_MAX_SVG_BYTES = 1_000_000
_Split = dict[str, Any]
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


@dataclass(frozen=True)
class CardFacts:
    """Content of a card that cannot be computed from the data.

    Attributes:
        title: Title, such as the name of the folder.
        command: Command that wrote the data set, such as `stedfm data build`.
        description: Description of the images, Markdown.
        settings: Settings by name, without absolute paths and names of people.
        simulated: Whether the images are simulated.
        source_note: Origin of the images, Markdown; None if unknown.
        licence: Identifier of the licence on the Hub, such as `cc-by-4.0`; None if unknown.
        mask_names: Names of the numbers in the masks, if known.
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
    """Write `README.md` and `figures/` of a data set whose shards and preview are written.

    Args:
        folder: Folder of the data set.
        facts: Content that cannot be computed from the data.
        statistics: Statistics of all rows.
        preview: Written preview.
    """
    # Imported here, because matplotlib is slow to import and worker processes do not need it.
    from stedfm_hf.data.publishing.figures import CONTACT_SHEET, HISTOGRAM, write_figures
    from stedfm_hf.data.publishing.summary import count_table, pixel_table

    record = statistics.to_json()
    for png in write_figures(folder / FIGURES, record, preview.samples()):
        svg = png.with_suffix(".svg")
        if svg.stat().st_size > _MAX_SVG_BYTES:
            svg.unlink()
    card = render_dataset_card(
        _front_matter(folder, facts, record, statistics, preview),
        facts=facts,
        settings={name: _setting_text(value) for name, value in facts.settings.items()},
        record=record,
        counts=count_table(record, max_labels=50),
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
    """Return the metadata of the card, with the files, columns and sizes of the crops and of the preview.

    The shards and the preview must be written already, because their files are measured.
    """
    labelled, masked = bool(record["labels"]), bool(record["with_mask"])
    tasks = ["image-feature-extraction"]
    tasks += ["image-classification"] * labelled + ["image-segmentation"] * masked
    crops: list[_Split] = [
        {"name": split, "num_bytes": size, "num_examples": record["splits"][split]["crops"]}
        for split, size in statistics.memory.items()
    ]
    previews: list[_Split] = [
        {
            "name": split,
            "num_bytes": (folder / preview_name(split)).stat().st_size,
            "num_examples": len(preview.rows(split)),
        }
        for split in statistics.splits
    ]
    features = crop_features(statistics.labels, planes=statistics.planes)
    shard_files, preview_files = (sorted(folder.glob(f"{name}/*.parquet")) for name in ("data", "preview"))
    return DatasetCardData(
        license=facts.licence,
        pretty_name=facts.title,
        task_categories=tasks,
        tags=[*_TAGS, *(["synthetic"] if facts.simulated else [])],
        size_categories=next((name for limit, name in _SIZES if record["crops"] < limit), "n>10M"),
        configs=[
            {
                "config_name": CONFIG,
                "version": _version(shard_files),
                "default": True,
                "data_files": _files("data/{}-*.parquet", crops),
            },
            {
                "config_name": PREVIEW,
                "version": _version(preview_files),
                "data_files": _files("preview/{}.parquet", previews),
            },
        ],
        dataset_info=[
            _info(CONFIG, features, crops, sum(path.stat().st_size for path in shard_files)),
            _info(PREVIEW, preview.features, previews, sum(split["num_bytes"] for split in previews)),
        ],
    )


def _version(files: Sequence[Path]) -> str:
    """Return a version with a checksum of the files.

    The `datasets` library identifies a cached local folder by its name and front matter alone. Without a new version,
    a data set that was built again would be read from the old cache.
    """
    checksum = 0
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
    return f"1.0.{checksum}"


def _files(pattern: str, splits: Sequence[_Split]) -> list[dict[str, str]]:
    """Return the glob of the files of each split; `pattern` has {} for the name of the split."""
    return [{"split": split["name"], "path": pattern.format(split["name"])} for split in splits]


def _info(config: str, features: Features, splits: Sequence[_Split], download_size: int) -> dict[str, Any]:
    """Return columns and sizes of a configuration in the form that the `datasets` library reads from a card."""
    return {
        "config_name": config,
        "features": features._to_yaml_list(),
        "splits": list(splits),
        "download_size": download_size,
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _setting_text(value: Any) -> str:
    """Return the text of a setting on the card; lists and mappings become one line."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_setting_text(each)}" for name, each in value.items())
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return ", ".join(map(_setting_text, value)) or "none"
    return str(value)


def _example(record: dict[str, Any]) -> dict[str, Any]:
    """Return values for the example code of the card: the first split, and the most frequent crop size and dtype."""
    size = record["sizes"][0]
    return {
        "split": next(iter(record["splits"])),
        "height": size["height"],
        "width": size["width"],
        "dtype": next(iter(record["dtypes"])),
        "uniform": len(record["sizes"]) == 1 and len(record["dtypes"]) == 1,
    }
