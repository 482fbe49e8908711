"""Items to cluster: features, source images and the columns that describe them, read from an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stedfm_hf.discovery.groups.morphology import image_features
from stedfm_hf.discovery.index.opened import Index
from stedfm_hf.evaluation.morphology import MORPHOLOGY
from stedfm_hf.labels.annotations import read_annotations
from stedfm_hf.runs import UserError

FOLDER = "folder"
"""Name of the column with the folder of each image."""
MOST_FOLDERS = 100
"""Largest number of folders of a level that are a column: more are names of single images or cells."""
DEFAULT_CONDITION = "condition"


@dataclass(frozen=True, eq=False)
class Items:
    """Images of an index.

    Attributes:
        index: Index that holds them.
        X: Features (n, d) float32.
        sources: Source image of each item (n,) str.
        columns: Columns that describe the items (n,), by name: str ("" if unknown) or float64 (NaN if unknown).
        condition: Name of the column whose enrichment is tested, or None.
    """

    index: Index
    X: np.ndarray
    sources: np.ndarray
    columns: dict[str, np.ndarray]
    condition: str | None

    def __len__(self) -> int:
        return len(self.X)

    @property
    def categories(self) -> dict[str, np.ndarray]:
        """Columns of text."""
        return {name: values for name, values in self.columns.items() if values.dtype.kind == "U"}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """Columns of numbers."""
        return {name: values for name, values in self.columns.items() if values.dtype.kind == "f"}


def read_items(
    index: Index,
    *,
    annotations: str | Path | None = None,
    condition: str | None = None,
    morphology: bool = False,
    masks: str | Path | None = None,
) -> Items:
    """Read the items of an index of images.

    Args:
        index: Index of images.
        annotations: Table that describes the images; see `read_annotations`.
        condition: Column to test; None takes `condition`, or the folders.
        morphology: Whether the features are those of morphology instead of the embeddings.
        masks: Folder of the masks of the objects for morphology; None detects bright spots.

    Raises:
        UserError: If it is an index of patches, or the table or the column does not fit.
    """
    if index.patches:
        raise UserError(f"{index.folder}: is an index of patches; cluster an index of images (without --patches)")
    table = index.items
    paths = table["path"].to_pylist()
    columns = folder_columns(paths)
    for name in ("series", "channel"):
        values = np.array(table[name].to_pylist())
        if len(set(values.tolist())) > 1 and len(set(values.tolist())) <= 20:
            columns[name] = values
    if annotations is not None:
        columns |= read_annotations(Path(annotations), paths)
    if morphology:
        columns |= (features := image_features(index, masks))
        X = np.stack([features[name] for name in MORPHOLOGY], axis=1).astype(np.float32)
    else:
        X = index.rows.take(np.asarray(table["first"])).astype(np.float32)
    # A file that cannot be read when it was indexed has no id: it is a source image of its own name.
    sources = np.array([source or path for source, path in zip(table["source"].to_pylist(), paths, strict=True)])
    return Items(index, X, sources, columns, _condition(columns, condition))


def folder_columns(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the folders of images as columns: one for each level whose folders differ.

    Args:
        paths: Path of each image (n,), with forward slashes.

    Returns:
        Folders (n,) str by `folder`, or by `folder 1`, `folder 2`, ... if more than one level differs; "" for images
        above the level.

    Example:
        >>> {name: values.tolist() for name, values in folder_columns(["a/train/1.tif", "b/train/1.tif"]).items()}
        {'folder': ['a', 'b']}
    """
    parts = [path.split("/")[:-1] for path in paths]
    levels = [
        np.array([part[level] if level < len(part) else "" for part in parts])
        for level in range(max(map(len, parts), default=0))
    ]
    differ = [values for values in levels if 1 < len(set(values.tolist())) <= MOST_FOLDERS]
    if len(differ) == 1:
        return {FOLDER: differ[0]}
    return {f"{FOLDER} {number}": values for number, values in enumerate(differ, start=1)}


def _condition(columns: dict[str, np.ndarray], wanted: str | None) -> str | None:
    """Return the name of the column to test.

    Raises:
        UserError: If there is no such column of text.
    """
    texts = [name for name, values in columns.items() if values.dtype.kind == "U"]
    if wanted is not None:
        if wanted not in texts:
            raise UserError(
                f"--condition {wanted}: is not a column of text; there are: {', '.join(texts) or 'none'}; give the "
                "columns with --annotations"
            )
        return wanted
    return next((name for name in (DEFAULT_CONDITION, FOLDER, f"{FOLDER} 1") if name in texts), None)
