"""`stedfm study simulate`: how many participants and trials a study needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.runs import Progress, UserError, counted, print_note, sha256_file, some_of
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.studies.settings import StudySimulateSettings
from stedfm_hf.studies.study import RANK, Study, all_images, read_study

if TYPE_CHECKING:
    from stedfm_hf.studies.power import PowerRow

COMMAND = "study simulate"
ANSWERS, POWER, REPORT = "answers.parquet", "power.parquet", "report.html"


@dataclass(frozen=True)
class StudySimulateResult(OutputResult):
    """Result of `study simulate`.

    Attributes:
        rows: Power of each size.
        recommended: Smallest size that reaches the wanted power, or None.
    """

    rows: tuple[PowerRow, ...]
    recommended: PowerRow | None

    def summary(self) -> str:
        """Return the power of each size and the recommended one."""
        from stedfm_hf.runs.wording import text_table

        cells = [
            (
                f"{row.participants}",
                f"{row.trials}",
                f"{row.power:.2f}",
                f"{row.low:.2f} to {row.high:.2f}",
                f"{row.tau:.2f}",
                f"{row.recovered:.2f}",
            )
            for row in self.rows
        ]
        table = text_table(
            ["participants", "trials", "power", "95 % interval", "rank correlation", "order recovered"], cells
        )
        best = self.recommended
        advice = (
            "no size is enough: try more with --participants or --trials"
            if best is None
            else f"recommended: {best.participants} participants with {best.trials} trials each"
        )
        return f"{table.replace('nan', '-')}\n{advice}\nreport: {self.output / REPORT}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        rows = [_plain(row) for row in self.rows]
        best = None if self.recommended is None else _plain(self.recommended)
        return super().to_json() | {"power": rows, "recommended": best}


@takes_settings(StudySimulateSettings)
def simulate_study(settings: StudySimulateSettings) -> StudySimulateResult:
    """Simulate a study, to find out how many participants and trials it needs.

    The output folder receives `power.parquet` (one row per size), `answers.parquet` (the answers of one study, with
    the stimuli of the study file and the recommended number of participants, or the largest), a figure and
    `report.html`.

    Returns:
        Power of each size.

    Raises:
        UserError: The study file is not valid, or states no expectation.

    Example:
        >>> simulate_study("study.yaml", "simulated", participants=[5, 10])  # doctest: +SKIP
    """
    study = read_study(settings.study)
    if not study.expect and not settings.null:
        raise UserError(
            f"{settings.study}: expect is missing; give the expected result of each group "
            f"({', '.join(study.groups)}), or use --null"
        )
    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    _note_missing_images(study, Path(settings.study).parent)

    from stedfm_hf.studies.answers import write_answers
    from stedfm_hf.studies.power import measure_power, recommend
    from stedfm_hf.studies.power_report import read_power, write_power, write_power_report
    from stedfm_hf.studies.raters import Raters, simulate_answers

    raters = Raters(settings.rater_sd, settings.image_sd, settings.null)
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=[POWER, ANSWERS, REPORT],
        temporary=["figures"],
        resolved={"study_sha256": sha256_file(settings.study)},
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
            rows = read_power(output.path / POWER)
        else:
            rows = _measure(study, settings, raters, measure_power)
            write_power(output.path / POWER, rows)
        best = recommend(rows, settings.power, order=study.type == RANK and not settings.null)
        if not output.finished:
            number = max(settings.participants) if best is None else best.participants
            write_answers(output.path / ANSWERS, simulate_answers(study, number, raters, seed=settings.seed).rows)
            write_power_report(output.path, study, settings, rows, best)
    return StudySimulateResult(output.path, output.manifest, tuple(rows), best)


def _note_missing_images(study: Study, folder: Path) -> None:
    """Print a note if only some images exist next to the study file: a plan may come before all of its images."""
    local = [path for path in all_images(study) if "://" not in path]
    missing = [path for path in local if not (folder / path).is_file()]
    if 0 < len(missing) < len(local):
        print_note(
            f"note: {len(missing)} of {counted(len(local), 'image')} are missing ({some_of(missing)}); the simulation "
            "does not need them, but `stedfm study serve` does"
        )


def _measure(study: Study, settings: StudySimulateSettings, raters: Any, measure: Any) -> list[PowerRow]:
    """Measure the power of every size."""
    trials = settings.trials or [study.trials or len(study.stimuli)]
    sizes = [(number, size) for size in trials for number in settings.participants]
    rows = []
    with Progress(len(sizes), description=COMMAND, unit="sizes") as progress:
        for number, size in sizes:
            rows.append(
                measure(
                    study, number, size, raters, repeats=settings.repeats, alpha=settings.alpha, seed=settings.seed
                )
            )
            progress.update()
    return rows


def _plain(row: PowerRow) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {name: None if value != value else value for name, value in values.items()}
