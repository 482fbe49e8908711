"""Simulated studies without a preference, and the p-values that the analysis gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from unittest.mock import patch

import numpy as np
import pandas as pd

from stedfm_hf.studies.answers import frame_of
from stedfm_hf.studies.comparisons import compare_groups, primary_p_value, stimuli_p_value
from stedfm_hf.studies.power import fitted_strengths
from stedfm_hf.studies.raters import Raters, simulate_answers
from stedfm_hf.studies.scores import Scores, scores_of
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, Study
from tests.studies.examples import stimuli, study

GROUPS, PARTICIPANTS, PERMUTATIONS = "ABC", 10, 999
PEOPLE_DIFFER, IMAGES_DIFFER = Raters(rater_sd=0.5, image_sd=0.0), Raters(rater_sd=0.0, image_sd=0.5)


@dataclass(frozen=True)
class Null:
    """Study whose groups are equal, for new participants or for new stimuli.

    Attributes:
        study: The study, with the same expectation for each group.
        people: Raters for the tests over participants.
        images: Raters for the test over stimuli, or None without such a test.
    """

    study: Study
    people: Raters = PEOPLE_DIFFER
    images: Raters | None = IMAGES_DIFFER


def _singles() -> list[dict[str, str]]:
    shown = [{"id": f"r{i}", "image": "r.png", "group": "real", "truth": "real"} for i in range(12)]
    return shown + [
        {"id": f"{g}{i}", "image": "g.png", "group": g, "truth": "generated"} for g in GROUPS for i in range(12)
    ]


def _study(kind: str, number: int, expected: float, groups: str = GROUPS) -> Study:
    return study(kind, stimuli=stimuli(kind, number, groups), expect=dict.fromkeys(groups, expected))


CASES = {
    "choose": Null(_study(CHOOSE, 30, 1 / 3)),
    "choose, two groups": Null(_study(CHOOSE, 30, 0.5, "AB")),
    "classify": Null(_study(CLASSIFY, 12, 0.75)),
    "classify, one group": Null(_study(CLASSIFY, 36, 1 / 3, "A"), Raters(null=True), None),
    "real or generated, pairs": Null(_study(REAL_OR_GENERATED, 12, 0.5)),
    "real or generated, single": Null(study(REAL_OR_GENERATED, stimuli=_singles(), expect=dict.fromkeys(GROUPS, 0.5))),
    # Raters order the images by their own taste, so that images of the groups stay exchangeable.
    "rank": Null(_study(RANK, 12, 0.0), images=Raters(rater_sd=0.5, image_sd=0.5)),
}


def p_values(case: str, seed: int, number: int, *, reference: bool = False) -> dict[str, float]:
    """Simulate a study, and return the p-value of each test of the report.

    Pairwise tests are those of the first two groups, and the test against chance is that of the first group alone, so
    that Holm's method does not change them. `smallest pair` is the smallest corrected p-value of all pairs.

    Args:
        case: Name in `CASES`.
        seed: Random seed of the series of studies.
        number: Number of the study in its series.
        reference: Whether to test as the published code did.
    """
    of, scores, answers, strengths = _simulated(case, seed, number)
    found, study_seed = {}, of.seed
    tests = compare_groups(scores, reference=reference, n_resamples=PERMUTATIONS, seed=study_seed)
    if len(of.groups) > 1:
        found = {
            "participants": tests.p_participants,
            "Kruskal-Wallis": tests.p_kruskal,
            "smallest pair": min((each.p for each in tests.pairs), default=1.0),
            "smallest pair, Mann-Whitney": min((each.p_mann_whitney for each in tests.pairs), default=1.0),
        }
    if reference:
        return found
    if len(of.groups) > 1:
        (two,) = compare_groups(_first(scores, 2), n_resamples=PERMUTATIONS, seed=study_seed).pairs
        found |= {"pair": two.p, "pair, Mann-Whitney": two.p_mann_whitney}
    is_guessed = scores.chance is not None and (of.type != CLASSIFY or len(of.groups) == 1)
    if is_guessed:
        alone = compare_groups(_first(scores, 1), n_resamples=PERMUTATIONS, seed=study_seed)
        found["chance"] = alone.means[0].p_chance
    if of.type == REAL_OR_GENERATED or len(of.groups) == 1:
        found["main"] = primary_p_value(of, scores, float("nan"), n_resamples=PERMUTATIONS, seed=study_seed)
    if answers is not None:
        found["stimuli"] = stimuli_p_value(of, answers, strengths, n_resamples=PERMUTATIONS, seed=study_seed)
    return found


@lru_cache(maxsize=1)
def _simulated(
    case: str, seed: int, number: int
) -> tuple[Study, Scores, pd.DataFrame | None, dict[str, float] | None]:
    """Return a study, its scores, and the answers and strengths for the test over stimuli."""
    null = CASES[case]
    of = dataclasses.replace(null.study, seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    scores = scores_of(of, _answers(of, null.people))
    if null.images is None:
        return of, scores, None, None
    answers = _answers(of, null.images)
    return of, scores, answers, fitted_strengths(of, answers) if of.type == RANK else None


@contextmanager
def random_ties(seed: int) -> Iterator[None]:
    """Count a random fraction of the permutations that are exactly as extreme as the data, instead of all.

    The p-value of the analysis counts all. It is discrete, and never too small. With a random fraction, the p-value of
    a valid test is exactly uniform.
    """
    rng = np.random.default_rng(seed)

    def randomised(permuted: np.ndarray, observed: float, scale: float) -> float:
        margin = 1e-12 * scale
        greater = int((permuted > observed + margin).sum())
        equal = int((permuted >= observed - margin).sum()) - greater
        return float(greater + rng.random() * (1 + equal)) / (1 + len(permuted))

    with (
        patch("stedfm_hf.metrics.statistics.permutation_p_value", randomised),
        patch("stedfm_hf.studies.comparisons.permutation_p_value", randomised),
    ):
        yield


def _answers(of: Study, raters: Raters) -> pd.DataFrame:
    return frame_of(simulate_answers(of, PARTICIPANTS, raters, seed=of.seed).rows)


def _first(scores: Scores, count: int) -> Scores:
    """Return the scores of the first groups only."""
    kept = slice(0, count)
    return dataclasses.replace(
        scores,
        groups=scores.groups[kept],
        values=scores.values[:, kept],
        low=scores.low[:, kept],
        high=scores.high[:, kept],
    )
