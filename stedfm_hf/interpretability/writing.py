"""Files of an explanation: the map as TIFF, and its figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stedfm_hf.inference.maps import write_map_tiff
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.inference.tables import OF_IMAGE, OF_MODEL
from stedfm_hf.interpretability.explainers import Explainer, Explanation
from stedfm_hf.interpretability.figures import limits_of, peak_of, write_figure

KINDS = {"map": "tif", "overlay": "png"}
"""Kinds of files that are written for an image, with their suffixes."""
PEAK = (("peak_value", pa.float64()), ("peak_y_px", pa.float64()), ("peak_x_px", pa.float64()))
"""Columns of the patch with the largest value: its value, and its top left corner in pixels of the file.

They are null for components, of which none is the first to look at.
"""


def explanation_schema(explainer: Explainer | type[Explainer]) -> pa.Schema:
    """Return the schema of the table of `explain` for a method."""
    files = [(f"{kind}_file", pa.string()) for kind in KINDS]
    return pa.schema([*OF_IMAGE, ("method", pa.string()), *explainer.columns, *PEAK, *files, *OF_MODEL])


@dataclass(frozen=True)
class ExplanationWriter:
    """Function that explains an image and writes its files (`annotate` of `process_sources`).

    Attributes:
        folder: Folder to write `<path of the image>.map<number>.tif` and `.overlay<number>.png` to.
        explainer: Function that explains the image.
        method: Name of the method.
    """

    folder: Path
    explainer: Explainer
    method: str

    def __call__(self, fact: Fact, pixels: np.ndarray) -> Fact:
        """Explain an image, write its files, and return the columns of its row.

        Raises:
            ValueError: If the image cannot be explained, or no value of the map is finite.
        """
        found = self.explainer(fact, pixels)
        if not np.isfinite(found.values).any():
            raise ValueError("the map is not finite; try --precision float32")
        names = {kind: f"{fact['path']}.{kind}{fact['image_number']}.{suffix}" for kind, suffix in KINDS.items()}
        cell = self._cell(fact, pixels, found)
        write_map_tiff(self.folder / names["map"], found.values, found.names, limits_of(found), cell, fact)
        write_figure(self.folder / names["overlay"], fact, pixels, found, self.explainer.unit)
        peak: tuple[float | None, ...] = (None, None, None)
        if found.colours is None:
            row, col = peak_of(found.values[0])
            peak = (float(found.values[0, row, col]), row * cell[0], col * cell[1])
        columns = {"method": self.method, **found.columns}
        columns |= {name: value for (name, _), value in zip(PEAK, peak, strict=True)}
        return columns | {f"{kind}_file": name for kind, name in names.items()}

    def _cell(self, fact: Fact, pixels: np.ndarray, found: Explanation) -> tuple[float, float]:
        """Return the height and width of a cell of the map in pixels of the file (before resampling)."""
        height, width = pixels.shape[1:]
        return found.cell * fact["height"] / height, found.cell * fact["width"] / width
