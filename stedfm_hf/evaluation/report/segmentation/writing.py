"""Everything that an evaluation of segmentation leaves in its folder."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.evaluation.report.files import PAGE, finite, write_table
from stedfm_hf.evaluation.report.segmentation.figures import draw_figures
from stedfm_hf.evaluation.report.segmentation.findings import Findings
from stedfm_hf.evaluation.report.segmentation.page import write_page_of
from stedfm_hf.evaluation.segmentation.scored import table_of
from stedfm_hf.runs import write_json

RESULTS, PER_IMAGE = "metrics.json", "per_image.parquet"


def write_findings(findings: Findings, folder: Path) -> None:
    """Write `metrics.json`, `per_image.parquet`, `figures/` and `report.html`."""
    scored = [each for scores in findings.scores.values() for each in scores]
    write_table(table_of(scored, findings.test.classes), folder / PER_IMAGE)
    figures = draw_figures(findings, folder / "figures")
    write_page_of(findings, figures, folder / PAGE)
    write_json(folder / RESULTS, finite(findings.record()))
