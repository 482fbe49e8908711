"""Mixed models: differences between groups where the same participants answer about the same stimuli."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

from stedfm_hf.studies.scores import truths
from stedfm_hf.studies.study import CHOOSE, GENERATED, RANK, REAL_OR_GENERATED, Study


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
        participant_sd: Standard deviation of the effects of participants, in log odds; NaN for `choose`.
        preference_sd: Standard deviation of the effects of participants on each group, in log odds; for `choose`, mean
            of the comparisons with the first group.
        stimulus_sd: Standard deviation of the effects of stimuli, in log odds.
        answers: Number of answers.
    """

    event: str
    baseline: str
    effects: tuple[MixedEffect, ...]
    participant_sd: float
    preference_sd: float
    stimulus_sd: float
    answers: int


def fit_mixed_model(study: Study, answers: pd.DataFrame) -> MixedModel | None:
    """Fit a mixed model to the answers of a study.

    For `choose`, each other group is compared with the first by the trials in which one of the two was chosen;
    participants and stimuli have a random effect. For the other tasks, every answer is an observation, right or wrong;
    participants have a random effect, and one for each group, and stimuli have a random effect.

    Effects and standard deviations are fitted by variational Bayes. Intervals are Laplace's approximation with these
    standard deviations, because variational Bayes treats effects as independent, which makes its own intervals much
    too narrow.

    Args:
        study: The study.
        answers: Analysed answers.

    Returns:
        The model; None for `rank`, for one group, and without two participants and a stimulus that both answered.

    Source:
        statsmodels, `BinomialBayesMixedGLM`; Begg and Gray, Calculation of polychotomous logistic regression
        parameters using individualized regressions, 1984 (`choose`).
    """
    repeats = answers.groupby("stimulus")["participant"].nunique()
    if study.type == RANK or len(study.groups) < 2 or answers["participant"].nunique() < 2 or repeats.max() < 2:
        return None
    if study.type == CHOOSE:
        return _fit_choices(study, answers)
    table = _answers_as_rows(study, answers)
    present = [group for group in study.groups if (table["group"] == group).any()]
    if len(present) < 2 or table["y"].nunique() < 2:
        return None
    random = {
        "participant": "0 + C(participant)",
        "preference": "0 + C(participant):C(group)",
        "stimulus": "0 + C(stimulus)",
    }
    # Numbers for names: names of groups may hold anything.
    mean, error, sds = _fit("y ~ C(group)", random, table.assign(group=[present.index(g) for g in table["group"]]))
    effects = tuple(map(_effect, present[1:], mean[1:], error[1:]))
    return MixedModel("a right answer", present[0], effects, sds[0], sds[1], sds[2], len(answers))


def _fit_choices(study: Study, answers: pd.DataFrame) -> MixedModel | None:
    """Compare each group with the first one by the trials in which one of the two was chosen."""
    baseline, effects, deviations = study.groups[0], [], []
    for group in study.groups[1:]:
        rows = answers[answers["answer"].isin([baseline, group])]
        table = rows[["participant", "stimulus"]].assign(y=(rows["answer"] == group).astype(int))
        if table["y"].nunique() < 2 or table["participant"].nunique() < 2:
            continue
        random = {"preference": "0 + C(participant)", "stimulus": "0 + C(stimulus)"}
        mean, error, sds = _fit("y ~ 1", random, table)
        effects.append(_effect(group, mean[0], error[0]))
        deviations.append(sds)
    if not effects:
        return None
    preference_sd, stimulus_sd = np.mean(deviations, axis=0).tolist()
    event = f"being chosen instead of {baseline}"
    return MixedModel(event, baseline, tuple(effects), float("nan"), preference_sd, stimulus_sd, len(answers))


def _effect(group: str, mean: float, error: float) -> MixedEffect:
    return MixedEffect(group, float(mean), float(mean - 1.959964 * error), float(mean + 1.959964 * error))


def _fit(formula: str, random: dict[str, str], table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return the fixed effects, their standard errors, and the standard deviations of the random effects."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    codes = {name: table[name].astype("category").cat.codes for name in ("participant", "stimulus")}
    model = BinomialBayesMixedGLM.from_formula(formula, random, table.assign(**codes))
    fitted = model.fit_vb(rng=0)  # without it, every run starts from other values
    return np.asarray(fitted.fe_mean), _errors(model, fitted), np.exp(np.asarray(fitted.vcp_mean)).tolist()


def _errors(model: Any, fitted: Any) -> np.ndarray:
    """Return the standard error of each fixed effect, given the standard deviations of the random effects."""
    design = sparse.hstack([sparse.csr_array(model.exog), sparse.csr_array(model.exog_vc)]).tocsr()
    probability = expit(design @ np.concatenate([fitted.fe_mean, fitted.vc_mean]))
    information = design.T @ sparse.diags_array(probability * (1 - probability)) @ design
    fixed = len(fitted.fe_mean)
    prior = np.concatenate([np.full(fixed, model.fe_p), np.exp(fitted.vcp_mean)[model.ident]])
    covariance = np.linalg.inv(information.toarray() + np.diag(prior**-2.0))
    return np.sqrt(np.diag(covariance)[:fixed])


def _answers_as_rows(study: Study, answers: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answer about an image of a group with a known truth."""
    truth = truths(study, answers["stimulus"])
    rows = answers[["participant", "stimulus"]].assign(
        group=[study.by_id[each].group for each in answers["stimulus"]],
        y=[int(answer == right) for answer, right in zip(answers["answer"], truth, strict=True)],
    )
    known = np.array([each is not None for each in truth]) & rows["group"].isin(study.groups)
    if study.type == REAL_OR_GENERATED and not study.is_paired:
        known &= np.array([each == GENERATED for each in truth])
    return rows[known].reset_index(drop=True)
