"""Consensus over resamples, compared with plain dense implementations."""

from __future__ import annotations

import numpy as np
import pytest

from stedfm_hf.discovery.clustering import consensus_matrix
from stedfm_hf.discovery.clustering.consensus import consensus_labels, resampled_sources
from stedfm_hf.discovery.clustering.kmeans import assign, fit_centres
from tests.discovery import generators


def test_the_matrix_equals_a_plain_dense_implementation() -> None:
    Y = generators.blobs(60, 0, k=3, dimensions=8).X
    found = consensus_matrix(Y, 4, np.random.default_rng(5), resamples=12)
    rng = np.random.default_rng(5)
    together, both = np.zeros((60, 60)), np.zeros((60, 60))
    for _ in range(12):
        rows = resampled_sources(np.arange(60), 0.8, rng)
        pieces = assign(Y[rows], fit_centres(Y[rows], np.ones(len(rows)), 4, rng, max_items=60))
        for a, piece_a in zip(rows, pieces, strict=True):
            for b, piece_b in zip(rows, pieces, strict=True):
                both[a, b] += 1
                together[a, b] += piece_a == piece_b
    assert found == pytest.approx(together / both)
    assert (np.diag(found) == 1).all() and 0 < found.mean() < 1


def test_a_resample_takes_whole_sources() -> None:
    sources = np.repeat(np.arange(10), 4)
    rows = resampled_sources(sources, 0.8, np.random.default_rng(0))
    assert len(rows) == 32 and set(np.bincount(sources[rows]).tolist()) <= {0, 4}


def labelled(Y: np.ndarray, groups: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    weights, rng = np.ones(len(Y), np.float32), np.random.default_rng(0)

    return consensus_labels(
        Y, weights, np.arange(len(Y)), groups, k, rng, resamples=30, fraction=0.8, max_items=len(Y)
    )


def test_separate_groups_are_stable_and_a_wrong_proposal_is_corrected() -> None:
    cloud = generators.blobs(90, 0, k=3, dimensions=8, separation=12)
    proposed = cloud.labels.copy()
    proposed[:5] = (proposed[:5] + 1) % 3
    labels, stability = labelled(cloud.X, proposed, 3)
    assert (labels == cloud.labels).all() and stability.min() == 1


def test_halves_of_noise_are_unstable() -> None:
    X = np.random.default_rng(0).standard_normal((200, 20)).astype(np.float32)
    _, stability = labelled(X, (X[:, 0] > 0).astype(int), 2)
    assert 0.5 <= stability.mean() < 0.9
