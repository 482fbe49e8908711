"""Analysis of a study: exclusions, scores, tests, agreement, confusion, detection and ranking in one object."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from stedfm_hf.studies.agreement import Agreement, measure_agreement
from stedfm_hf.studies.bradley_terry import BradleyTerry, fit_bradley_terry
from stedfm_hf.studies.comparisons import GroupTests, compare_groups, primary_p_value, stimuli_p_value
from stedfm_hf.studies.exclusions import Kept, apply_exclusions
from stedfm_hf.studies.mixed import MixedModel, fit_mixed_model
from stedfm_hf.studies.scores import Scores, confusion_matrices, detection, losers, rankings_of, scores_of
from stedfm_hf.studies.study import CLASSIFY, RANK, REAL_OR_GENERATED, Study


@dataclass(frozen=True, eq=False)
class Analysis:
    """Results of a study; what a task does not have is None or empty.

    Attributes:
        study: The study.
        reference: Whether the definitions of the published code were used.
        kept: Analysed answers, and what was excluded.
        scores: Scores of the participants.
        tests: Tests of the differences between groups.
        p: P-value of the main question; see `primary_p_value`.
        agreement: Agreement of the participants.
        mixed: Mixed model.
        confusion: Counts of true class and answer by group, for `classify`.
        detection: d' by participant and group, for `real-or-generated`.
        strengths: Bradley-Terry model, for `rank`.
        rankings: Finished ranking of each participant, for `rank`.
        changed: Keys of the study file that differ from the study that was served.
        rank_agreement: Mean of Kendall's rank correlation between participants, for `rank`; NaN for one participant.
    """

    study: Study
    reference: bool
    kept: Kept
    scores: Scores
    tests: GroupTests
    p: float
    agreement: Agreement | None
    mixed: MixedModel | None
    confusion: dict[str, pd.DataFrame]
    detection: pd.DataFrame
    strengths: BradleyTerry | None
    rankings: dict[str, tuple[str, ...]]
    rank_agreement: float
    changed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain data; undefined values are None."""
        found = {
            "title": self.study.title,
            "type": self.study.type,
            "changed_since_served": list(self.changed),
            "protocol": "reference" if self.reference else "default",
            "participants": len(self.kept.participants),
            "participants_excluded": self.kept.excluded,
            "answers": len(self.kept.answers),
            "answers_not_analysed": self.kept.counts,
            "score": self.scores.name,
            "chance": self.scores.chance,
            "p": self.p,
            **dataclasses.asdict(self.tests),
            "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
            "mixed_model": None if self.mixed is None else dataclasses.asdict(self.mixed),
            "ranking": [] if self.strengths is None else list(self.strengths.ranking),
            "rank_agreement": self.rank_agreement,
        }
        return {name: _defined(value) for name, value in found.items()}


def analyse_answers(
    study: Study,
    answers: pd.DataFrame,
    *,
    reference: bool = False,
    mixed_model: bool = True,
    seed: int = 0,
    changed: Sequence[str] = (),
) -> Analysis:
    """Analyse the answers of a study.

    Args:
        study: The study.
        answers: Answers of `read_answers`.
        reference: Whether to use the definitions of the published code.
        mixed_model: Whether to fit a mixed model.
        seed: Random seed of the permutations.
        changed: Keys of the study file that differ from the study that was served, for the report.

    Returns:
        The analysis.

    Raises:
        UserError: If no answer is left after the exclusions.
    """
    kept = apply_exclusions(answers, study)
    analysed, strengths = kept.answers, None
    if study.type == RANK:
        items = [each.id for each in study.stimuli]
        strengths = fit_bradley_terry(
            items, analysed["answer"].to_list(), losers(analysed), analysed["participant"].to_list()
        )
    by_image = None if strengths is None else dict(zip(strengths.items, strengths.strength.tolist(), strict=True))
    p_stimuli = stimuli_p_value(study, analysed, by_image, seed=seed)
    scores = scores_of(study, analysed, reference=reference)
    plain = scores if not reference else scores_of(study, analysed)
    rankings = rankings_of(study, analysed) if study.type == RANK else {}
    return Analysis(
        study,
        reference,
        kept,
        scores,
        compare_groups(scores, p_stimuli, reference=reference, seed=seed),
        primary_p_value(study, plain, p_stimuli, seed=seed),
        None if study.type == RANK else measure_agreement(analysed),
        fit_mixed_model(study, analysed) if mixed_model else None,
        confusion_matrices(study, analysed) if study.type == CLASSIFY else {},
        detection(study, analysed) if study.type == REAL_OR_GENERATED else pd.DataFrame(),
        strengths,
        rankings,
        _rank_agreement(rankings),
        tuple(changed),
    )


def _rank_agreement(rankings: dict[str, tuple[str, ...]]) -> float:
    positions = [np.argsort(order) for order in rankings.values()]
    taus = [kendalltau(first, second).statistic for first, second in itertools.combinations(positions, 2)]
    return float(np.mean(taus)) if taus else float("nan")


def _defined(value: Any) -> Any:
    """Return plain data with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _defined(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
