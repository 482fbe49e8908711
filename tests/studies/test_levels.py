"""Without a preference, p-values are uniform, and never too small.

`tests/benchmarks/studies.py` tests 500 studies of each task.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from tests.studies.null_studies import CASES, p_values, random_ties

LEVEL = 0.001
"""P-value below which a series is called not uniform: about 50 series are tested."""
CORRECTED = ("smallest pair", "smallest pair, Mann-Whitney")


def series(case: str, number: int) -> dict[str, np.ndarray]:
    """P-values of each test in simulated studies without a preference."""
    rows = [p_values(case, 0, each) for each in range(number)]
    return {test: np.array([row[test] for row in rows]) for test in rows[0]}


@pytest.mark.parametrize("case", CASES)
def test_p_values_without_preferences_are_not_too_small(case: str) -> None:
    """Also the smallest corrected p-value of all pairs."""
    for test, values in series(case, 10).items():
        assert kstest(values, "uniform", alternative="greater").pvalue > LEVEL, test


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_p_values_without_preferences_are_uniform(case: str) -> None:
    with random_ties(0):
        found = series(case, 40)
    for test, values in found.items():
        assert test in CORRECTED or kstest(values, "uniform").pvalue > LEVEL, test
