"""`stedfm attribute measure`: how the measured attributes of images change along walks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.generation.settings import AttributeMeasureSettings
from stedfm_hf.runs import Manifest, UserError, manifest_path
from stedfm_hf.runs.failures import print_failed
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.weights.models import find_model

if TYPE_CHECKING:
    from stedfm_hf.generation.measures import Change

COMMAND = "attribute measure"
MEASURES, CHANGES, REPORT = "measures.parquet", "changes.parquet", "report.html"


@dataclass(frozen=True)
class AttributeMeasureResult(OutputResult):
    """Result of `attribute measure`.

    Attributes:
        changes: Change of each attribute along the direction.
        random: Changes along each random direction, by name of the attribute; empty without random walks.
    """

    changes: tuple[Change, ...]
    random: dict[str, list[Change]]

    def summary(self) -> str:
        """Return the attributes that change, with the largest change along a random direction."""
        from stedfm_hf.generation.measured import largest_change

        lines = [f"{self.output}: {len(self.changes)} attributes along {self.changes[0].walks} walks"]
        lines.append("changes whose 95 % interval excludes 0:")
        for change in self.changes:
            if change.total_low > 0 or change.total_high < 0:
                interval = f"{change.total_low:.3g} to {change.total_high:.3g}"
                line = f"  {change.name}: {change.total:+.3g} ({interval})"
                if self.random:
                    line += f"; along random directions at most {largest_change(self.random[change.name]):.3g}"
                lines.append(line)
        lines.append(f"report: {self.output / REPORT}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {
            "changes": {each.name: {"total": each.total, "spearman": each.rank_correlation} for each in self.changes}
        }


@takes_settings(AttributeMeasureSettings)
def measure_attribute(settings: AttributeMeasureSettings) -> AttributeMeasureResult:
    """Measure attributes of the images along walks, compared with random directions and with real images.

    The output folder receives `measures.parquet` (one row per image), `changes.parquet` (one row per attribute and
    direction), figures and `report.html`.

    Returns:
        Changes of the attributes.

    Raises:
        UserError: The folder holds no walks, or the output something else.

    Example:
        >>> measure_attribute("walks", "measured", dataset="my-crops")  # doctest: +SKIP
    """
    walks = Path(settings.walks)
    record = manifest_path(walks / "walks.parquet", folder=False)
    if not record.is_file() or Manifest.load(record).ended is None:
        raise UserError(f"{walks}: holds no finished walks; make them with `stedfm attribute walk`")
    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    source = None if settings.classifier is None else find_model(settings.classifier, head="ForImageClassification")

    from stedfm_hf.generation.measure_report import write_measure_report
    from stedfm_hf.generation.measured import (
        measure_real,
        measure_walks,
        read_measured,
        read_real,
        size_of_walks,
        summarise,
        write_changes,
        write_measured,
    )
    from stedfm_hf.generation.measurer import Measurer
    from stedfm_hf.inference.loading import load_classifier

    measure = Measurer(None if source is None else load_classifier(source, device=settings.device))
    weights = None if measure.classifier is None else measure.classifier.weights_sha256
    made = Manifest.load(record).settings
    attribute = str(made["attribute"])
    # Before the output is made: data that do not fit leave nothing behind.
    real, failed = measure_real(read_real(settings, made.get("classes", ())), size_of_walks(walks), measure)
    print_failed(failed)
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=[MEASURES, CHANGES, REPORT],
        resolved={"walks": walks.resolve().name, "attribute": attribute, "real": sorted(real), "classifier": weights},
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
            measured = read_measured(output.path / MEASURES)
        else:
            measured = measure_walks(walks, attribute, measure)
            write_measured(output.path / MEASURES, measured)
        changes, random = summarise(measured)
        if not output.finished:
            write_changes(output.path / CHANGES, changes, random)
            write_measure_report(output.path, measured, changes, random, real)
            for name, reason in failed.items():
                output.manifest.failed(name, reason)
    return AttributeMeasureResult(output.path, output.manifest, tuple(changes), random)
