"""Files of an index: immutable segments, what is computed from them, and one small file that names the current ones.

`index.json` is replaced in one step after everything that it names is on disk. An index is therefore always the one
before or the one after a run, also after a kill or on a full disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stedfm_hf.discovery.settings import STATE
from stedfm_hf.inference.tables import OF_IMAGE
from stedfm_hf.runs import ItemStatus, UserError, read_json, write_json
from stedfm_hf.runs.parts import Part, PartStore

FORMAT = 1
SEGMENTS = "segments"
DERIVED = "derived"
ADDING = "adding"
"""Names in the folder of an index: the state, segments, what is computed from them, and parts that are being added."""
EMBEDDINGS = "embeddings.npy"
ITEMS = "items"
DATASETS = "datasets"
"""Note of a segment: data sets, as paths relative to the index or Hub ids, whose rows it holds."""
DTYPES = {"avg": "float32", "patch": "float16"}
"""Type of the stored embeddings by pooling."""

ITEM_SCHEMA = pa.schema(
    [
        *OF_IMAGE,
        ("rows", pa.int64()),
        ("cols", pa.int64()),
        ("patch_height_px", pa.float64()),
        ("patch_width_px", pa.float64()),
        ("file", pa.string()),
        ("content", pa.string()),
        ("source", pa.string()),
    ]
)
"""Columns of the items, one row per image and channel.

`rows` and `cols` are the grid of its embeddings (1 and 1 for images), `patch_height_px` and `patch_width_px` the size
of a patch in pixels of the file, `file` the path of the file relative to the index or null, `content` a hash of its
bytes or "", and `source` the id of its source image.
"""
PART_SCHEMA = pa.schema([*ITEM_SCHEMA, ("embeddings", pa.large_binary())])
"""Columns of parts that are being added: items with their embeddings as bytes."""


@dataclass(frozen=True)
class State:
    """Current state of an index.

    Attributes:
        pooling: `avg` for images, `patch` for patches.
        dim: Length of an embedding.
        version: Number of changes since the index was made.
        segments: Names of the segments, in order.
        removed: Numbers of the removed items of each segment.
        search: Kind of search: `exact` or `approximate`.
        reason: Why this kind of search was chosen.
    """

    pooling: str
    dim: int
    version: int = 0
    segments: tuple[str, ...] = ()
    removed: dict[str, list[int]] = field(default_factory=dict)
    search: str = "exact"
    reason: str = ""

    def next(self, **changes: Any) -> State:
        """Return the state after a change."""
        return replace(self, version=self.version + 1, **changes)


def exists(folder: Path) -> bool:
    """Return whether a folder holds an index."""
    return (folder / STATE).is_file()


def read_state(folder: Path) -> State:
    """Read the current state of an index.

    Raises:
        UserError: If the folder is not an index, or its state is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; make an index with `stedfm index images/ --output {folder}`")
        raise UserError(f"{folder}: is not an index; give a folder that `stedfm index` wrote")
    record = read_json(path)
    try:
        found = dict(record)
        if found.pop("format") != FORMAT:
            raise ValueError("another version")
        return State(**{**found, "segments": tuple(found["segments"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is a damaged state ({error}); make the index again with --overwrite") from error


def write_state(folder: Path, state: State) -> None:
    """Make a state the current one, and remove the files that it does not name.

    Args:
        folder: Folder of the index; everything that the state names is in it.
        state: New state.
    """
    write_json(folder / STATE, {"format": FORMAT, **asdict(state)})
    remove_unused(folder, state)


def remove_unused(folder: Path, state: State) -> None:
    """Remove files that the state does not name: those of earlier states and of interrupted runs."""
    named = {
        SEGMENTS: set(state.segments),
        DERIVED: {derived_name(state)},
        ADDING: {next_segment(state)},
    }
    for kind, names in named.items():
        for each in (folder / kind).glob("*"):
            if each.name not in names:
                shutil.rmtree(each, ignore_errors=True)


def derived_name(state: State) -> str:
    """Return the name of the folder of what is computed from the segments of a state."""
    return f"{state.version:06d}"


def next_segment(state: State) -> str:
    """Return the name of the segment that the next run writes; it depends on the state only, so that a run resumes."""
    return f"{state.version + 1:06d}"


@dataclass(frozen=True)
class Segment:
    """Segment of an index: items and their embeddings, never changed once it is written.

    Attributes:
        folder: Folder of the segment.
        part: Items with their status and notes.
    """

    folder: Path
    part: Part

    @property
    def statuses(self) -> dict[str, ItemStatus]:
        """Status of the items that the segment holds, by path."""
        return self.part.items

    @property
    def datasets(self) -> list[str]:
        """Data sets whose rows the segment holds."""
        return list(self.part.notes.get(DATASETS, []))

    def items(self) -> pa.Table:
        """Read the table of items."""
        return self.part.table().cast(ITEM_SCHEMA)

    def embeddings(self) -> np.ndarray:
        """Open the embeddings (n, D), memory-mapped.

        Raises:
            UserError: If the file is missing or damaged.
        """
        return open_array(self.folder / EMBEDDINGS)


def open_segment(folder: Path, name: str) -> Segment:
    """Open a segment of an index.

    Raises:
        UserError: If a file of the segment is missing or damaged.
    """
    path = folder / SEGMENTS / name
    try:
        return Segment(path, PartStore(path).read(ITEMS))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise damaged(path) from error


def open_array(path: Path) -> np.ndarray:
    """Open an array file, memory-mapped; it can be read like an array in memory, and is never changed.

    Raises:
        UserError: If the file is missing or damaged.
    """
    try:
        # Copy on write: torch warns about arrays that cannot be written.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    """Return the error for a file of an index that is missing or damaged."""
    return UserError(f"{path}: is missing or damaged; restore it, or make the index again with --overwrite")


@contextmanager
def new_embeddings(path: Path, count: int, dim: int, dtype: str) -> Iterator[Any]:
    """Create an array file (count, dim) and yield the open file, to which the values are written in order.

    The file is written, not memory-mapped: on a full disk, writing to mapped memory would kill the process.
    """
    with path.open("wb") as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (count, dim),
        }
        np.lib.format.write_array_header_2_0(file, header)
        yield file
