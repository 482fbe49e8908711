"""Mixed models: differences between groups where the same participants answer about the same stimuli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stedfm_hf.studies.scores import truths
from stedfm_hf.studies.study import CHOOSE, RANK, REAL_OR_GENERATED, Study


@dataclass(frozen=True)
class MixedEffect:
    """Effect of a group, compared with the first group.

    Attributes:
        group: Name of the group.
        log_odds: Difference of the log odds from the first group (posterior mean).
        low: Lower bound of the 95 % credible interval.
        high: Upper bound.
    """

    group: str
    log_odds: float
    low: float
    high: float


@dataclass(frozen=True)
class MixedModel:
    """Logistic mixed model with crossed random effects of participants and stimuli.

    Attributes:
        event: Event whose odds are modelled.
        baseline: First group.
        effects: Effects of the other groups.
        participant_sd: Standard deviation of the effects of participants, in log odds.
        stimulus_sd: Standard deviation of the effects of stimuli, in log odds.
        answers: Number of answers.
    """

    event: str
    baseline: str
    effects: tuple[MixedEffect, ...]
    participant_sd: float
    stimulus_sd: float
    answers: int


def fit_mixed_model(study: Study, answers: pd.DataFrame) -> MixedModel | None:
    """Fit a mixed model to the answers of a study, by variational Bayes.

    Of `choose`, every option of a trial is an observation, chosen or not, and participants and stimuli have a random
    effect for each group. Of the other tasks, every answer is an observation, right or wrong.

    Args:
        study: The study.
        answers: Analysed answers.

    Returns:
        The model; None for `rank`, for one group, and without two participants and a stimulus that both answered.

    Source:
        statsmodels, `BinomialBayesMixedGLM`.
    """
    repeats = answers.groupby("stimulus")["participant"].nunique()
    if study.type == RANK or len(study.groups) < 2 or answers["participant"].nunique() < 2 or repeats.max() < 2:
        return None
    if study.type == CHOOSE:
        event, table = "being chosen", _options_as_rows(study, answers)
    else:
        event, table = "a right answer", _answers_as_rows(study, answers)
    present = [group for group in study.groups if (table["group"] == group).any()]
    if len(present) < 2 or table["y"].nunique() < 2:
        return None

    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    # Numbers for names: names of groups may hold anything.
    table = table.assign(
        group=[present.index(each) for each in table["group"]],
        participant=table["participant"].astype("category").cat.codes,
        stimulus=table["stimulus"].astype("category").cat.codes,
    )
    by_group = ":C(group)" if study.type == CHOOSE else ""
    random = {name: f"0 + C({name}){by_group}" for name in ("participant", "stimulus")}
    fitted = BinomialBayesMixedGLM.from_formula("y ~ C(group)", random, table).fit_vb()
    mean, error = np.asarray(fitted.fe_mean), np.asarray(fitted.fe_sd)
    effects = tuple(
        MixedEffect(group, float(m), float(m - 1.959964 * e), float(m + 1.959964 * e))
        for group, m, e in zip(present[1:], mean[1:], error[1:], strict=True)
    )
    participant_sd, stimulus_sd = np.exp(np.asarray(fitted.vcp_mean)).tolist()
    return MixedModel(event, present[0], effects, participant_sd, stimulus_sd, len(answers))


def _options_as_rows(study: Study, answers: pd.DataFrame) -> pd.DataFrame:
    rows = answers.loc[answers.index.repeat(len(study.groups)), ["participant", "stimulus", "answer"]]
    rows = rows.assign(group=list(study.groups) * len(answers))
    return rows.assign(y=(rows["answer"] == rows["group"]).astype(int)).reset_index(drop=True)


def _answers_as_rows(study: Study, answers: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer about an image of a group with a known truth."""
    truth = truths(study, answers["stimulus"])
    rows = answers[["participant", "stimulus"]].assign(
        group=[study.by_id[each].group for each in answers["stimulus"]],
        y=[int(answer == right) for answer, right in zip(answers["answer"], truth, strict=True)],
    )
    known = np.array([each is not None for each in truth]) & rows["group"].isin(study.groups)
    if study.type == REAL_OR_GENERATED and not study.is_paired:
        known &= [each != "real" for each in truth]
    return rows[known].reset_index(drop=True)
