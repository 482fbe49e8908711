"""Choose the regions of a scored field, rank them, and describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stedfm_hf.acquisition.regions import Region, find_regions
from stedfm_hf.inference.preparation import Fact

Select = Callable[[str, np.ndarray, Fact, tuple[float, float]], list[Region]]
"""Function that returns the regions of a class, from its name, its score map (rows, cols), the facts of the image and
the size of a cell of the map in pixels of the file."""


@dataclass(frozen=True)
class RegionChoice:
    """Function that selects the regions of a class (`Select`).

    Attributes:
        min_scores: Smallest score of a region of each class.
        count: Largest number of regions of a class.
        size_px: Height and width of a region, in pixels of the file.
        size_um: The same in µm; None uses `size_px`.
        min_distance_px: Smallest distance of the centres of two regions along an axis, in pixels; None is their size.
    """

    min_scores: Mapping[str, float]
    count: int
    size_px: float
    size_um: float | None = None
    min_distance_px: float | None = None

    def __call__(self, name: str, values: np.ndarray, fact: Fact, cell: tuple[float, float]) -> list[Region]:
        """Return the regions of a class, the highest score first.

        Raises:
            ValueError: If the size is in µm, and the pixel size of the image is not known.
        """
        size = (self.size_px, self.size_px)
        if self.size_um is not None:
            if (pixel := fact["pixel_size_nm"]) is None:
                raise ValueError("the file has no pixel size; give --region-size-px instead of --region-size-um")
            size = (1000 * self.size_um / pixel[0], 1000 * self.size_um / pixel[1])
        return find_regions(
            values,
            cell=cell,
            shape=(fact["height"], fact["width"]),
            size=size,
            min_score=self.min_scores[name],
            count=self.count,
            min_distance=None if self.min_distance_px is None else (self.min_distance_px,) * 2,
        )

    def why_none(self, values: np.ndarray, names: Sequence[str]) -> str:
        """Return why a field has no region, by the class whose highest score is nearest to its smallest one.

        Args:
            values: Score maps (L, rows, cols).
            names: Names of the maps.

        Returns:
            Sentence without a full stop.

        Example:
            >>> RegionChoice({"rings": 0.5}, 10, 64).why_none(np.array([[[0.25, 0.31]]]), ["rings"])
            'no score reaches the smallest score of a region, which is 0.5 for rings; the highest is 0.31'
        """
        highest = dict(zip(names, values.max(axis=(1, 2)).tolist(), strict=True))
        name = max(names, key=lambda each: highest[each] - self.min_scores[each])
        return (
            f"no score reaches the smallest score of a region, which is {self.min_scores[name]:.4g} for {name}; the "
            f"highest is {highest[name]:.4g}"
        )


def cell_size(fact: Fact, pixels: np.ndarray, cell: int) -> tuple[float, float]:
    """Return the height and width of a cell of a map in pixels of the file.

    Args:
        fact: Facts about the image.
        pixels: Input of the model (C, H, W), which may be resampled.
        cell: Size of a cell, in pixels of the input.
    """
    height, width = pixels.shape[1:]
    return cell * fact["height"] / height, cell * fact["width"] / width


def check_finite(values: np.ndarray) -> None:
    """Refuse score maps that are not finite.

    Raises:
        ValueError: If a score is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("the score map is not finite; try --precision float32")


def ranked_regions(
    values: np.ndarray, names: Sequence[str], select: Select, fact: Fact, cell: tuple[float, float]
) -> dict[int, tuple[str, Region]]:
    """Select the regions of all classes, and rank them by their score.

    Args:
        values: Score maps (L, rows, cols).
        names: Names of the maps.
        select: Function that selects the regions of a class.
        fact: Facts about the image.
        cell: Height and width of a cell of the maps, in pixels of the file.

    Returns:
        Name of the class and region of each rank, from 1.
    """
    found = [
        (name, region) for name, plane in zip(names, values, strict=True) for region in select(name, plane, fact, cell)
    ]
    return dict(enumerate(sorted(found, key=lambda each: -each[1].score), 1))


def region_columns(
    rank: int, label: str, region: Region, fact: Fact, stage_um: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the columns of a region in the table of `find`, except for those of the image.

    Args:
        rank: Rank in the field, from 1.
        label: Name of its class.
        region: Region.
        fact: Facts about the image.
        stage_um: x and y of its centre on the stage, in µm, or None.
    """
    x, y = (None, None) if stage_um is None else stage_um
    return {"rank": rank, "label": label, **region.columns(fact["pixel_size_nm"]), "stage_x_um": x, "stage_y_um": y}
