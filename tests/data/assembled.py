"""Small data sets for the tests, assembled like those of all commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from stedfm_hf.data.assembly.assemble import assemble
from stedfm_hf.data.assembly.output import DatasetSummary
from stedfm_hf.data.assembly.staging import StagedImage, Staging, part_name
from stedfm_hf.data.publishing import figures
from stedfm_hf.data.publishing.card import CardFacts
from stedfm_hf.data.repository.layout import Crop, Scaling, crop_features, crops_to_table
from stedfm_hf.data.splits import SplitFractions
from stedfm_hf.runs import ItemStatus, Manifest

FACTS = CardFacts("cells", "stedfm data build")
SPLIT_FRACTIONS = SplitFractions(validation=0.25, test=0.25)


def noisy_crop(number: int, **changes: Any) -> Crop:
    """Return a random crop (8, 8) uint8; two crops belong to one source image."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
    known: dict[str, Any] = {
        "pixels": pixels,
        "scaling": Scaling(0.0, 900.0, applied=True, quantiles=(0.001, 0.999)),
        "source": f"folder/{number // 2}.tif",
        "x": 8 * (number % 2),
        "pixel_size_nm": (20.0, 20.0),
        "foreground_fraction": 0.25,
        "metadata": {"number": number},
    }
    return Crop(**known | changes)


def labelled_crops(count: int, labels: Sequence[str] = ("rings", "puncta")) -> list[Crop]:
    """Return crops whose source images have alternating labels."""
    return [noisy_crop(number, label=labels[number // 2 % len(labels)]) for number in range(count)]


def write_repo(output: Path, crops: Sequence[Crop], facts: CardFacts = FACTS, **options: Any) -> DatasetSummary:
    """Write a data set of these crops; consecutive crops of one source are one image."""
    staging = Staging(output)
    for number, source in enumerate(dict.fromkeys(crop.source for crop in crops)):
        mine = [crop for crop in crops if crop.source == source]
        image = StagedImage(source, source, "", len(mine), mine[0].label)
        staging.write_crops(part_name(number), mine, [image], {source: ItemStatus("done")})
    options = {
        "manifest": Manifest("data build"),
        "fractions": SPLIT_FRACTIONS,
        "seed": 0,
        "rows_per_shard": 4,
        **options,
    }
    with empty_sheets():
        summary = assemble(staging, output, card=facts, **options)
    summary.manifest.finish()
    summary.manifest.save(output / "manifest.json")
    staging.remove()
    return summary


@contextmanager
def empty_sheets() -> Iterator[None]:
    """Plot no crops on contact sheets: making their panels takes half of the time of a small build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "contact_sheet", lambda *_: Figure())
        yield


def write_plain_card(folder: Path, *facts: Any) -> None:
    """Replacement of `write_card`, whose figures take longer than everything else."""
    (folder / "figures").mkdir()
    (folder / "README.md").write_text("a card", encoding="utf-8")


def as_table(crops: Sequence[Crop], labels: Sequence[str] = ()) -> pa.Table:
    """Convert crops to rows of `crop_features`, with labels as numbers."""
    table = crops_to_table(crops)
    codes = [None if crop.label is None else list(labels).index(crop.label) for crop in crops]
    place = table.schema.get_field_index("label")
    return table.set_column(place, "label", pa.array(codes, pa.int64())).cast(crop_features(labels).arrow_schema)
