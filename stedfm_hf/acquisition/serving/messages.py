"""What a server answers about finders, fields and regions; shared by the server and its client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NPY, TIFF, JSON = "application/x-npy", "image/tiff", "application/json"
"""Types of content of images and of score maps."""
CLASSES_HEADER, CELL_HEADER = "X-Classes", "X-Cell-Px"
"""Headers of a score map as `.npy`: names of the classes as JSON, and height and width of a cell in pixels."""
REMARK_HEADER = "X-Remark"
"""Header of an empty list of regions: why no region was found, as JSON."""


@dataclass(frozen=True)
class FinderInfo:
    """Finder of a client.

    Attributes:
        id: Id of the finder.
        method: Method: `templates`, `prototypes`, `logistic` or `forest`.
        classes: Names of the classes.
        min_scores: Smallest score of a region of each class, unless another one is given.
        quantity: Quantity that the scores are.
        images: Number of annotated images.
        patches: Number of annotated patches of the background and of each class.
        warning: Sentence about a finder that accepts every patch, or None.
    """

    id: str
    method: str
    classes: tuple[str, ...]
    min_scores: tuple[float, ...]
    quantity: str
    images: int
    patches: dict[str, int]
    warning: str | None = None


@dataclass(frozen=True)
class FoundRegion:
    """Region of a field to image next; the names are the columns of the table of `find`.

    Attributes:
        rank: Rank in the field, from 1.
        label: Name of its class.
        score: Score of its peak.
        y_px: Top edge, in pixels.
        x_px: Left edge, in pixels.
        height_px: Height, in pixels.
        width_px: Width, in pixels.
        centre_y_px: Row of the centre, in pixels; 0 is the centre of the first pixel.
        centre_x_px: Column of the centre, in pixels.
        y_um: Top edge, in µm; like the next five, None if the pixel size is not known.
        x_um: Left edge, in µm.
        height_um: Height, in µm.
        width_um: Width, in µm.
        centre_y_um: Row of the centre, in µm.
        centre_x_um: Column of the centre, in µm.
        peak_y_px: Row of the centre of the patch with the score, in pixels.
        peak_x_px: Column of the centre of the patch with the score, in pixels.
        stage_x_um: x of the centre on the stage, in µm; None without a matrix of the stage.
        stage_y_um: y of the centre on the stage, in µm; None without a matrix of the stage.
    """

    rank: int
    label: str
    score: float
    y_px: float
    x_px: float
    height_px: float
    width_px: float
    centre_y_px: float
    centre_x_px: float
    y_um: float | None
    x_um: float | None
    height_um: float | None
    width_um: float | None
    centre_y_um: float | None
    centre_x_um: float | None
    peak_y_px: float
    peak_x_px: float
    stage_x_um: float | None
    stage_y_um: float | None


@dataclass(frozen=True, eq=False)
class FieldScores:
    """Score maps of a field.

    Attributes:
        values: Scores (L, rows, cols) float32, one value per patch.
        classes: Names of the L classes.
        cell_px: Height and width of a cell of the maps, in pixels of the image.
    """

    values: np.ndarray
    classes: tuple[str, ...]
    cell_px: tuple[float, float]

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the maps."""
        cell = f"{self.cell_px[0]!r},{self.cell_px[1]!r}"
        return {CLASSES_HEADER: json.dumps(self.classes), CELL_HEADER: cell}

    @classmethod
    def from_headers(cls, values: np.ndarray, headers: Mapping[str, str]) -> FieldScores:
        """Combine maps with their headers.

        Args:
            values: Maps (L, rows, cols).
            headers: Headers of the response.
        """
        height, width = map(float, headers[CELL_HEADER].split(","))
        return cls(values, tuple(json.loads(headers[CLASSES_HEADER])), (height, width))
