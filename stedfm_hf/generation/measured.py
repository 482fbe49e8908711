"""Measured attributes of walks and of real images: computed, stored and summarised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from stedfm_hf.generation.measurer import Measurer
from stedfm_hf.generation.measures import PIXEL_SIZE_NM, Change, change_along, drift
from stedfm_hf.generation.settings import AttributeMeasureSettings
from stedfm_hf.labels.labelled import LabelledImages, read_labelled
from stedfm_hf.modeling.image_processing_stedfm import StedFmImageProcessor
from stedfm_hf.reports.figures import middle
from stedfm_hf.runs import Progress, UserError, atomic_path, counted

DRIFT = "drift"
"""Name of the change from step to step: 1 - structural similarity to the image before."""
_OF_WALK = ("file", "path", "direction", "step", "wanted", "reached")
MOST_REAL = 500
"""Largest number of real images of a class and split that are measured."""
REAL = "real images"
"""Name of real images without classes."""
RealImages = Mapping[str, Sequence[tuple[LabelledImages, np.ndarray]]]
"""Real images of each class: data sets, and the numbers of their images (n,)."""


@dataclass(frozen=True, eq=False)
class MeasuredWalks:
    """Attributes along walks, one row per image.

    Attributes:
        frame: Columns `file`, `path`, `direction`, `step`, `wanted`, `reached`, and the attributes.
        attribute: Name of the direction; other directions are random.
    """

    frame: pd.DataFrame
    attribute: str

    @property
    def names(self) -> list[str]:
        """Names of the measured attributes."""
        return [str(name) for name in self.frame if name not in {*_OF_WALK, DRIFT}]


def measure_walks(folder: Path, attribute: str, measure: Measurer | None = None) -> MeasuredWalks:
    """Measure the images of `stedfm attribute walk`.

    Args:
        folder: Folder of the walks.
        attribute: Name of the direction.
        measure: Function that measures images; by default without a classifier.

    Raises:
        UserError: If a file of a walk is missing.
    """
    table = pq.read_table(folder / "walks.parquet").to_pandas()
    measure, parts = measure or Measurer(), []
    files = list(dict.fromkeys(table["file"]))
    with Progress(len(files), description="attribute measure", unit="walks") as progress:
        for file in files:
            rows = table[table["file"] == file].sort_values("step")
            images = _read_walk(folder / file)[1:]  # the first one is the real image
            size = rows["pixel_size_nm"].iloc[0]
            part = rows[list(_OF_WALK)].copy()
            part[list(measure.names)] = measure(
                images, pixel_size_nm=PIXEL_SIZE_NM if size is None else float(size[1])
            )
            part[DRIFT] = [np.nan, *drift(images[None])[0]]
            parts.append(part)
            progress.update()
    return MeasuredWalks(pd.concat(parts, ignore_index=True), attribute)


def write_measured(path: Path, measured: MeasuredWalks) -> None:
    """Write the table of measured images."""
    table = pa.Table.from_pandas(measured.frame, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"attribute": measured.attribute}), temporary)


def read_measured(path: Path) -> MeasuredWalks:
    """Read a table that `write_measured` wrote."""
    table = pq.read_table(path)
    attribute = (table.schema.metadata or {})[b"attribute"].decode()
    return MeasuredWalks(table.replace_schema_metadata(None).to_pandas(), attribute)


def summarise(measured: MeasuredWalks) -> tuple[list[Change], dict[str, list[Change]]]:
    """Return the change of each attribute along the direction, and along each random direction by attribute.

    Random directions are summarised one by one: a mean over them would vanish, because an attribute grows along some
    of them and falls along others.
    """
    frame = measured.frame
    own = frame[frame["direction"] == measured.attribute]
    others = frame[frame["direction"] != measured.attribute]
    changes = [_change(name, own) for name in measured.names]
    along = [rows for _, rows in others.groupby("direction")]
    return changes, {name: [_change(name, rows) for rows in along] for name in measured.names} if along else {}


def largest_change(changes: Sequence[Change]) -> float:
    """Return the largest absolute change, of random directions; NaN if none is defined."""
    known = [abs(each.total) for each in changes if np.isfinite(each.total)]
    return max(known, default=float("nan"))


def _change(name: str, frame: pd.DataFrame) -> Change:
    # Every file is a walk; every path a source image, from which several walks can start.
    wide = frame.pivot(index="file", columns="step", values=name)
    paths = frame.drop_duplicates("file").set_index("file")["path"]
    return change_along(name, wide.to_numpy(float), paths.loc[wide.index].to_numpy(str))


def write_changes(path: Path, changes: list[Change], random: dict[str, list[Change]]) -> None:
    """Write one row per attribute, with its change along the direction and along each random direction."""
    rows = [
        {
            "attribute": each.name,
            "walks": each.walks,
            "change": each.total,
            "change_low": each.total_low,
            "change_high": each.total_high,
            "spearman": each.rank_correlation,
            "random_changes": [other.total for other in random[each.name]] if random else None,
        }
        for each in changes
    ]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_real(settings: AttributeMeasureSettings, classes: Sequence[str] = ()) -> RealImages:
    """Read the labels of the real images to compare with.

    Args:
        settings: Settings of the command.
        classes: Classes of the direction, which are shown unless the settings name others.

    Returns:
        Images of each class, in the order of the classes; empty without a data set.

    Raises:
        UserError: The data set cannot be read, or has no class of a name.
    """
    if settings.dataset is None:
        return {}
    found: dict[str, list[tuple[LabelledImages, np.ndarray]]] = {}
    for data in read_labelled(settings.dataset, settings.split, target=settings.target).values():
        names = np.array(data.classes)[data.labels] if data.task == "classes" else np.full(len(data), REAL)
        for name in dict.fromkeys(names.tolist()):
            found.setdefault(name, []).append((data, np.flatnonzero(names == name)))
    if unknown := [each for each in settings.classes if each not in found]:
        known = ", ".join(sorted(found))
        raise UserError(f"--classes {unknown[0]}: is not a class of {settings.dataset}; there are: {known}")
    shown = settings.classes or [each for each in classes if each in found] or sorted(found)
    return {name: found[name] for name in shown}


def measure_real(
    real: RealImages, size_px: int, measure: Measurer | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Measure real images by class.

    Images are scaled as for the network and cropped to the size of the walks. Unreadable and smaller ones are left
    out.

    Args:
        real: Images of each class.
        size_px: Height and width of the images of the walks, in pixels.
        measure: Function that measures images; by default without a classifier.

    Returns:
        Attributes (n, k) of each class, and the reason why an image was left out, by its name.

    Raises:
        UserError: If no image can be measured.
    """
    measure = measure or Measurer()
    processor, found, failed = StedFmImageProcessor(), dict[str, list[np.ndarray]](), dict[str, str]()
    for name, data, numbers in ((name, *part) for name, parts in real.items() for part in parts):
        for number in np.random.default_rng(0).permutation(numbers)[:MOST_REAL].tolist():
            try:
                stored = data.stored(number)
                image = processor.prepare(stored)[0]
                height, width = image.shape
                if min(height, width) < size_px:
                    raise ValueError(
                        f"is {height} x {width} pixels, smaller than the {size_px} x {size_px} pixels of the walks"
                    )
            except (ValueError, OSError) as error:
                failed[str(data.image_ids[number])] = " ".join(str(error).split())
                continue
            pixel = PIXEL_SIZE_NM if stored.pixel_size_nm is None else stored.pixel_size_nm[1]
            found.setdefault(name, []).append(measure([middle(image, size_px)], pixel_size_nm=pixel))
    if real and not found:
        name, reason = next(iter(failed.items()))
        raise UserError(
            f"none of {counted(len(failed), 'real image')} can be measured; give other images, or leave out "
            f"--dataset. First error: {name}: {reason}"
        )
    return {name: np.concatenate(each) for name, each in found.items()}, failed


def size_of_walks(folder: Path) -> int:
    """Return the height and width of the images of walks, in pixels.

    Args:
        folder: Folder of the walks.

    Raises:
        UserError: If there are no walks, or the first one cannot be read.
    """
    table = folder / "walks.parquet"
    files = pq.read_table(table, columns=["file"])["file"].to_pylist() if table.is_file() else []
    if not files:
        raise UserError(f"{folder}: holds no images, because all files failed; run `stedfm attribute walk` again")
    return int(_read_walk(folder / files[0]).shape[-1])


def _read_walk(path: Path) -> np.ndarray:
    """Read the images of a walk (1 + steps, H, W)."""
    try:
        return np.asarray(tifffile.imread(path), np.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the walk again") from error
