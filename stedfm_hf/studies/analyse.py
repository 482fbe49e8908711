"""`stedfm study analyse`: results of a study, with tables, figures and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stedfm_hf.runs import (
    Manifest,
    UserError,
    counted,
    manifest_path,
    options,
    print_note,
    read_json,
    sha256_file,
    write_json,
)
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.studies.settings import StudyAnalyseSettings
from stedfm_hf.studies.study import changed_note, read_study

COMMAND = "study analyse"
RESULTS, SCORES, PARTICIPANTS, REPORT = "results.json", "scores.parquet", "participants.parquet", "report.html"
TABLES = ("confusion.parquet", "detection.parquet", "strengths.parquet", "rankings.parquet")
"""Tables that only some tasks have."""


@dataclass(frozen=True)
class StudyAnalyseResult(OutputResult):
    """Result of `study analyse`.

    Attributes:
        results: Content of `results.json`.
    """

    results: dict[str, Any]

    def summary(self) -> str:
        """Return the scores of the groups and the main test."""
        found = self.results
        everyone, excluded = found["participants"], found["participants_excluded"]
        lines = [
            f"{self.output}: {counted(found['answers'], 'answer')} of {counted(everyone - excluded, 'participant')}"
            + (f"; {excluded} of {everyone} excluded" if excluded else "")
        ]
        if others := found["answers_not_analysed"]:
            lines.append("not analysed: " + "; ".join(f"{reason}: {number:,}" for reason, number in others.items()))
        chance = "" if found["chance"] is None else f" (chance {found['chance']:.3g})"
        lines.append(f"{found['score']}{chance}:")
        for each in found["means"]:
            interval = "" if each["low"] is None else f" ({each['low']:.3f} to {each['high']:.3f})"
            mean = "undefined" if each["mean"] is None else f"{each['mean']:.3f}"
            lines.append(f"  {each['group']}: {mean}{interval}")
        if found["p"] is not None:
            lines.append(f"p = {found['p']:.3g}")
        if found["agreement"] is not None and found["agreement"]["alpha"] is not None:
            lines.append(f"agreement of participants: alpha {found['agreement']['alpha']:.2f}")
        return "\n".join([*lines, f"report: {self.output / REPORT}"])

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"results": self.results}


@takes_settings(StudyAnalyseSettings)
def analyse_study(settings: StudyAnalyseSettings) -> StudyAnalyseResult:
    """Analyse the answers of a study.

    The output folder receives `results.json`, `scores.parquet` (one row per participant and group),
    `participants.parquet`, the tables of the task, figures and `report.html`.

    Returns:
        Results of the study.

    Raises:
        UserError: The study file or the answers are not valid, no answer is left, or statsmodels is not installed.

    Example:
        >>> analyse_study("study.yaml", "answers.parquet", "analysis")  # doctest: +SKIP
    """
    study = read_study(settings.study)
    if not Path(settings.answers).is_file():
        raise UserError(f"{settings.answers}: no such file; give the table of answers of the study")
    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    if find_spec("statsmodels") is None:
        raise UserError('the analysis needs statsmodels: pip install "stedfm-hf[studies]"')

    from stedfm_hf.studies.analysis import analyse_answers
    from stedfm_hf.studies.analysis_report import write_analysis_report
    from stedfm_hf.studies.analysis_tables import write_tables
    from stedfm_hf.studies.answers import changed_keys, read_answers

    answers = read_answers(settings.answers, study)
    if changed := changed_keys(settings.answers, study):
        print_note(f"note: {changed_note(changed)}")
    hashes = {"study": sha256_file(settings.study), "answers": sha256_file(settings.answers)}
    if not settings.overwrite:
        _check_unchanged(Path(settings.output), hashes)
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=[RESULTS, SCORES, PARTICIPANTS, REPORT],
        temporary=["figures", *TABLES],
        resolved={f"{name}_sha256": value for name, value in hashes.items()},
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            analysis = analyse_answers(
                study,
                answers,
                reference=settings.protocol == options.REFERENCE,
                mixed_model=settings.mixed_model,
                seed=settings.seed,
                changed=changed,
            )
            write_tables(output.path, analysis)
            write_analysis_report(output.path, analysis)
            write_json(output.path / RESULTS, analysis.to_json())
        results = read_json(output.path / RESULTS)
    return StudyAnalyseResult(output.path, output.manifest, results)


def _check_unchanged(output: Path, hashes: Mapping[str, str]) -> None:
    """Refuse an earlier analysis of another study file or of other answers, such as those before the last export."""
    record = manifest_path(output, folder=True)
    if not ((output / RESULTS).exists() and record.exists()):
        return
    old = Manifest.load(record).settings
    names = {"study": "study file", "answers": "answers"}
    if changed := [names[name] for name, value in hashes.items() if old.get(f"{name}_sha256") != value]:
        raise UserError(
            f"{output}: the {' and the '.join(changed)} changed since this analysis; replace it with --overwrite"
        )
