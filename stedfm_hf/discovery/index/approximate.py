"""Approximate search with faiss: principal components, an inverted file and 8-bit codes, re-ranked exactly.

The vectors are standardised embeddings of unit length, compared by L2 distance, whose order is that of the cosine.
(With the inner product the principal components, which faiss centres, would change the order.)
"""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.discovery.index.standardised import Rows, Standardiser
from stedfm_hf.runs import Progress, UserError, counted, print_note

EXACT_ROWS = 1_000_000
"""Number of embeddings up to which `auto` searches exactly."""
PROBES = 32
"""Number of lists of the inverted file that a query reads."""
RERANKED = 200
"""Smallest number of candidates whose similarity is computed exactly."""
COMPONENTS = (64, 96, 128, 192, 256)
"""Numbers of principal components to choose from."""
VARIANCE = 0.98
"""Fraction of the variance that the principal components keep, if memory allows."""
MEMORY_FRACTION = 0.25
"""Fraction of the memory of the machine that the codes may use."""
TRAINING_PER_LIST, MOST_TRAINING = 64, 262_144
INSTALL = 'needs faiss. Run: pip install "stedfm-hf[discovery]"'


@dataclass(frozen=True)
class Plan:
    """Kind of search of an index.

    Attributes:
        search: `exact` or `approximate`.
        reason: Why, as the end of a sentence.
    """

    search: str
    reason: str


def plan_search(requested: str, count: int, dim: int) -> Plan:
    """Choose the kind of search by the number of embeddings and the memory of the machine.

    Args:
        requested: `auto`, `exact` or `approximate`.
        count: Number of embeddings.
        dim: Length of an embedding.

    Raises:
        UserError: If approximate search is requested and faiss is not installed, or there are too few embeddings.

    Example:
        >>> plan_search("auto", 1000, 384)
        Plan(search='exact', reason='1,000 embeddings')
    """
    size = counted(count, "embedding")
    if requested == "exact":
        return Plan("exact", f"{size}, as requested")
    if requested == "auto" and count <= EXACT_ROWS:
        return Plan("exact", size)
    if not has_faiss():
        if requested == "approximate":
            raise UserError(f"--search approximate {INSTALL}")
        print_note(f"note: {size}: searches are exact and take seconds; approximate search {INSTALL}")
        return Plan("exact", f"{size}, faiss is not installed")
    if count < 39 * 4:  # faiss warns below 39 training vectors per list
        raise UserError(f"--search approximate needs at least 156 embeddings, not {count}; use --search exact")
    return Plan("approximate", size if requested == "auto" else f"{size}, as requested")


def has_faiss() -> bool:
    """Return whether faiss is installed."""
    try:
        _faiss()
    except ImportError:
        return False
    return True


def build(path: Path, rows: Rows, standardiser: Standardiser, norms: np.ndarray, kept: np.ndarray) -> str:
    """Train an approximate index on the rows, add all of them, and write it.

    Args:
        path: File to write.
        rows: All rows; the number of a row is its id.
        standardiser: Mean and standard deviation.
        norms: Norms of the standardised rows.
        kept: Numbers of the rows that are not removed; the index is trained on them.

    Returns:
        Description of the index, such as `PCA96,IVF1024,SQ8`.
    """
    faiss = _faiss()
    lists = _number_of_lists(len(kept))
    some = kept[np.linspace(0, len(kept) - 1, min(len(kept), lists * TRAINING_PER_LIST, MOST_TRAINING)).astype(int)]
    training = _unit(rows.take(some), standardiser, norms[some])
    components = _components(training, len(rows))
    text = f"IVF{lists},SQ8" if components is None else f"PCA{components},IVF{lists},SQ8"
    index = faiss.index_factory(rows.dim, text, faiss.METRIC_L2)
    index.train(training)
    with Progress(len(rows), description="index", unit="embeddings") as progress:
        for first, chunk in rows.chunks():
            index.add(_unit(np.asarray(chunk, np.float32), standardiser, norms[first : first + len(chunk)]))
            progress.update(len(chunk))
    faiss.write_index(index, str(path))
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return text


def open_approximate(path: Path) -> Any:
    """Open an approximate index.

    Raises:
        UserError: If faiss is not installed, or the file is damaged.
    """
    try:
        faiss = _faiss()
    except ImportError as error:
        raise UserError(f"{path}: the approximate search {INSTALL}") from error
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: is missing or damaged; make the index again with --overwrite") from error


def candidates(index: Any, queries: np.ndarray, count: int, excluded: np.ndarray | None) -> np.ndarray:
    """Return the numbers of the rows that are probably nearest to unit queries (m, D); (m, c) int64, -1 for none.

    Args:
        index: Index of `open_approximate`.
        queries: Unit queries in the standardised space.
        count: Number of rows for each query.
        excluded: Whether each row is excluded (n,) bool, or None.
    """
    faiss = _faiss()
    parameters = faiss.SearchParametersIVF(nprobe=PROBES)
    if excluded is not None:
        bits = np.packbits(~excluded, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(nprobe=PROBES, sel=selector)
    if isinstance(index, faiss.IndexPreTransform):
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    return index.search(np.ascontiguousarray(queries, np.float32), count, params=parameters)[1]


def _faiss() -> Any:
    """Import faiss, whose type annotations do not fit its functions.

    Raises:
        ImportError: If it is not installed.
    """
    return importlib.import_module("faiss")


def _number_of_lists(count: int) -> int:
    """Return the power of two next to the square root, with at least 39 training vectors for each list."""
    lists = 2 ** round(math.log2(max(4.0, math.sqrt(count))))
    return max(4, min(lists, count // 39))


def _components(training: np.ndarray, count: int) -> int | None:
    """Return the number of principal components that keeps the variance, less where memory is short; None for all."""
    dim = training.shape[1]
    centred = training - training.mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    kept = np.cumsum(variances) / max(float(variances.sum()), 1e-30)
    needed = int(np.searchsorted(kept, VARIANCE)) + 1
    allowed = _memory() * MEMORY_FRACTION / max(count, 1)
    fitting = [each for each in (*COMPONENTS, dim) if each <= min(dim, allowed)] or [min(COMPONENTS[0], dim)]
    chosen = next((each for each in sorted(fitting) if each >= needed), max(fitting))
    return None if chosen >= dim else chosen


def _memory() -> float:
    """Return the memory of the machine in bytes; 8 GiB where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows
        return 8.0 * 2**30


def _unit(values: np.ndarray, standardiser: Standardiser, norms: np.ndarray) -> np.ndarray:
    mean, scale = standardiser.mean.astype(np.float32), standardiser.scale.astype(np.float32)
    return (values - mean) / scale / norms[:, None]
