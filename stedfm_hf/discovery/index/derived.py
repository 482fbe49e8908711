"""What is computed from the segments of a state: mean and standard deviation, norms, and the approximate index."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from stedfm_hf.discovery.index import approximate
from stedfm_hf.discovery.index.layout import DERIVED, State, derived_name, open_array, open_segment
from stedfm_hf.discovery.index.standardised import Rows, Standardiser, fit_standardiser, norms_of

STANDARDISER, NORMS, APPROXIMATE = "standardiser.npy", "norms.npy", "approximate.faiss"


def open_rows(folder: Path, state: State) -> Rows:
    """Open the embeddings of all segments of a state."""
    return Rows([open_segment(folder, name).embeddings() for name in state.segments], state.dim)


def removed_rows(folder: Path, state: State) -> np.ndarray:
    """Return whether each row belongs to a removed item, (n,) bool."""
    masks = []
    for name in state.segments:
        items = open_segment(folder, name).items()
        counts = np.asarray(items["rows"]) * np.asarray(items["cols"])
        removed = np.zeros(len(counts), bool)
        removed[state.removed.get(name, [])] = True
        masks.append(np.repeat(removed, counts))
    return np.concatenate([np.zeros(0, bool), *masks])


def derive(folder: Path, state: State, search: str) -> State:
    """Compute what searches of a new state need, and write it; the current state is not changed.

    Args:
        folder: Folder of the index.
        state: New state.
        search: Requested kind of search.

    Returns:
        The state with the kind of search and its reason.
    """
    target = folder / DERIVED / derived_name(state)
    shutil.rmtree(target, ignore_errors=True)  # of an interrupted run
    target.mkdir(parents=True)
    rows, kept = open_rows(folder, state), np.flatnonzero(~removed_rows(folder, state))
    plan = approximate.plan_search(search, len(kept), state.dim)
    standardiser = fit_standardiser(rows, kept)
    norms = norms_of(rows, standardiser)
    np.save(target / STANDARDISER, np.stack([standardiser.mean, standardiser.scale]))
    np.save(target / NORMS, norms)
    reason = plan.reason
    if plan.search == "approximate":
        text = approximate.build(target / APPROXIMATE, rows, standardiser, norms, kept)
        reason = f"{reason}: {text}, {approximate.PROBES} lists per query, {approximate.RERANKED} re-ranked"
    return replace(state, search=plan.search, reason=reason)


def open_standardiser(folder: Path, state: State) -> tuple[Standardiser, np.ndarray]:
    """Open mean and standard deviation, and the norms of all rows."""
    path = folder / DERIVED / derived_name(state)
    mean, scale = open_array(path / STANDARDISER)
    return Standardiser(mean, scale), open_array(path / NORMS)
