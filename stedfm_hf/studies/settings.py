"""Settings of `stedfm study analyse` and `stedfm study simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stedfm_hf.runs import options
from stedfm_hf.runs.settings import argument, option, settings


def _study() -> Any:
    return argument(affects_result=False, metavar="STUDY", help="Study file (YAML).")


@settings
class StudyAnalyseSettings:
    """Analyse the answers of a study.

    The exclusion rules of the study file are applied first, and everything that they exclude is reported. Scores,
    agreement, tests and rankings follow, with figures and a report.
    """

    study: str | Path = _study()
    answers: str | Path = argument(affects_result=False, metavar="ANSWERS", help="Table of answers (Parquet).")
    output: str | Path = option(
        Path("analysis"), affects_result=False, metavar="DIR", help="Folder of the results to write."
    )
    protocol: str = options.protocol(
        "shows standard deviations, scores classifications without Other and Unclassifiable, counts generated images "
        "that are taken for real, and makes uncorrected pairwise tests of independent samples"
    )
    mixed_model: bool = option(True, help="Fit a mixed model if participants answered about the same stimuli.")
    seed: int = options.seed("the permutations")
    overwrite: bool = options.overwrite()


@settings
class StudySimulateSettings:
    """Simulate a study, to find out how many participants and trials it needs.

    Simulated raters answer with the preferences that the study file expects. For each size, the power is the fraction
    of simulated studies that find a significant preference. The answers of one study are written as well, to try the
    analysis on.
    """

    study: str | Path = _study()
    output: str | Path = option(
        Path("simulated"), affects_result=False, metavar="DIR", help="Folder of the results to write."
    )
    participants: list[int] = option(
        default_factory=lambda: [5, 10, 20], minimum=1, help="Numbers of participants to try; by default 5, 10 and 20."
    )
    trials: list[int] = option(
        default_factory=list,
        minimum=1,
        help="Numbers of stimuli for each participant to try, for rank numbers of images to sort; by default that of "
        "the study file.",
    )
    repeats: int = option(200, minimum=1, help="Number of simulated studies of each size.")
    power: float = option(0.8, minimum=0, maximum=1, help="Power that the recommended size reaches.")
    alpha: float = option(0.05, minimum=0, maximum=1, help="Significance level.")
    rater_sd: float = option(
        0.5, minimum=0, help="Standard deviation of the preferences of raters around the expected ones, in log odds."
    )
    image_sd: float = option(0.5, minimum=0, help="Standard deviation of the effects of images, in log odds.")
    null: bool = option(False, help="Simulate raters without any preference, to test the analysis.")
    seed: int = options.seed("the raters and the permutations")
    overwrite: bool = options.overwrite()
