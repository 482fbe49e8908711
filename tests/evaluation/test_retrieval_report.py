"""Report of `evaluate retrieval`: tables, texts and figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stedfm_hf.evaluation.rankings import Queries, compare_rankings, rank_images, summarise_rankings
from stedfm_hf.evaluation.report import MethodInfo
from stedfm_hf.evaluation.report.retrieval import RetrievalReport, metric_title, write_retrieval_report
from stedfm_hf.labels.splits import Splits
from tests.labels.labelled_data import arrays


def retrieval_report(per_class: int = 30, *, per_source: int = 2) -> RetrievalReport:
    """Evaluate a model that separates the classes, and a baseline that does not."""
    data, rng = arrays(per_class, per_source=per_source, size=8), np.random.default_rng(0)
    noise = rng.normal(size=(len(data), 3))
    features = {"good": np.eye(3)[data.labels] * 3 + noise, "guess": rng.normal(size=(len(data), 3))}
    rankings = {
        (method, setting): ranking
        for method, values in features.items()
        for setting, ranking in rank_images(values, data.labels, data.sources, ks=[1, 5]).items()
    }
    queries = Queries(data.classes, data.labels, data.image_ids, data.sources, {})
    return RetrievalReport(
        command="evaluate retrieval",
        splits=Splits(data, data.take([]), data, "All images are queries.", "all", leave_one_out=True),
        data_notes=["It is unknown which images good was trained on."],
        methods=[
            MethodInfo("good", "A <good> model", "model", "abc"),
            MethodInfo("guess", "Guess", "baseline", None),
        ],
        queries=queries,
        rankings=rankings,
        primary="aupr",
        summary=summarise_rankings(queries, rankings, primary="aupr"),
        comparisons=compare_rankings(queries, rankings, ["good"], primary="aupr"),
        protocol=["Images are ranked."],
        baselines={"guess": "Guess: random numbers."},
        settings={"protocol": "default", "k": [1, 5]},
        failed={"a/bad.tif": "is empty"},
        seconds={"evaluation": 1.0},
    )


@pytest.mark.figures
def test_the_page_shows_results_and_protocol(tmp_path: Path) -> None:
    report = retrieval_report()
    write_retrieval_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A &lt;good&gt; model reaches mAP" in page and "significantly better than Guess" in page
    assert "precision@5" in page and "a/bad.tif" in page
    assert "Images are ranked." in page and "Guess: random numbers." in page
    assert page.count("data:image/png") == 1 and (tmp_path / "figures" / "retrieval.svg").is_file()
    assert pq.read_table(tmp_path / "queries.parquet").num_rows == 2 * 2 * 90


def test_the_page_warns_about_few_sources(tmp_path: Path) -> None:
    write_retrieval_report(retrieval_report(5, per_source=1), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No conclusion can be drawn" in page and "better than" not in page


def test_a_ranking_with_the_same_results_is_not_shown_again(tmp_path: Path) -> None:
    assert retrieval_report().shown == ["other sources", "all others"]
    own_sources = retrieval_report(per_source=1)
    assert own_sources.shown == ["other sources"]
    write_retrieval_report(own_sources, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Ranked: all others" in page and page.count("All results are the same as above.") == 1
    assert page.count("mean over classes") == 1, "one table"


def test_intervals_are_over_sources_and_tests_are_corrected() -> None:
    report = retrieval_report()
    row = report.row("good", "other sources")
    assert row["aupr"]["low"] < row["aupr"]["mean"] < row["aupr"]["high"]
    one_source = {**vars(report.queries), "sources": np.array(["s"] * len(report.queries))}
    of_one = summarise_rankings(Queries(**one_source), report.rankings, primary="aupr")[0]
    assert of_one["aupr"]["low"] == of_one["aupr"]["high"], "one source has no variation"
    assert len(report.comparisons) == 2 and all(each["p"] <= each["p_holm"] < 0.01 for each in report.comparisons)


def test_titles_of_metrics() -> None:
    assert [metric_title(name) for name in retrieval_report().metrics] == [
        "mAP",
        "AUROC",
        "precision@1",
        "precision@5",
        "mAP@5",
    ]
