"""Sections of the page of `evaluate robustness` on embeddings and on real batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stedfm_hf.evaluation.report.cells import NONE, nonbreaking
from stedfm_hf.evaluation.report.robustness.evaluation import Robustness
from stedfm_hf.evaluation.report.sentences import LEVEL as SIGNIFICANT
from stedfm_hf.labels.splits import FEW_PER_CLASS
from stedfm_hf.metrics.batch_effects import LEVEL
from stedfm_hf.metrics.representation_scores import BATCH_SCORES, BIOLOGY_SCORES
from stedfm_hf.reports import Section, Table
from stedfm_hf.runs import counted, some_of

SCORE_NAMES = {
    "graph_connectivity": "graph",
    "kbet": "kBET",
    "lisi_batch": "LISI b.",
    "silhouette_batch": "silh. b.",
    "lisi_label": "LISI c.",
    "ari": "ARI",
    "nmi": "NMI",
    "silhouette_label": "silh. c.",
    "map": "mAP",
    "batch": "batch",
    "biology": "biology",
    "overall": "overall",
}
"""Names of the representation scores in reports."""
_SHORT = (
    "graph: connectivity of the classes; b.: of batches; c.: of classes; LISI: local inverse Simpson index; silh.: "
    "silhouette; ARI and NMI: k-means clusters compared with classes; mAP: without replicates."
)
_SIZE = (
    "The size of an effect is the length of the displacement of the mean embedding, divided by the standard deviation "
    "of the source images within a class. With size 1, images move as far as those of a class are from their mean. An "
    f"effect is called if its p-value is below {LEVEL}, corrected by Holm's method for all rows of the method."
)


_MIXED = (
    "Batch scores are 1 if batches are mixed, biology scores if classes are apart; overall is 0.4 times the batch "
    "score plus 0.6 times the biology score. A score that is undefined is missing, and so are its means."
)


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash if it is missing.

    Args:
        value: Number, NaN or None.
        digits: Number of decimals.
    """
    return NONE if value is None or value != value else f"{value:z.{digits}f}"  # z: no minus sign before zero


def effect_section(report: Robustness) -> Section:
    """Return the section with the sizes of the effects of changes on embeddings.

    Args:
        report: Results.
    """
    rows_of = _by_method(report.measured.effects)
    titles = {family.name: family.title for family in report.families}
    rows, before = [], ""
    for each in rows_of[report.main.key]:
        family, label = each["family"], each["label"]
        cells = []
        for method, found in rows_of.items():
            row = next(row for row in found if (row["family"], row["label"]) == (family, label))
            cells.append(_effect(row, with_interval=method == report.main.key))
        rows.append((titles[family] if family != before else "", label, *cells))
        before = family
    text = [_SIZE, f"The same images are compared before and after the change. {_not_called(rows_of)}"]
    header = ("change", "level", *(nonbreaking(report.name(method)) for method in rows_of))
    return Section("Effects on embeddings", text, table=Table(header, rows, _reasons(report.measured.effects)))


def score_sections(report: Robustness) -> list[Section]:
    """Return the sections with the representation scores of the first method, and the overall scores of all.

    Args:
        report: Results.
    """
    titles = {family.name: family.title for family in report.families}
    rows_of = _by_method(report.measured.scores)
    rows = rows_of[report.main.key]
    text = [f"The levels of a family are the batches. {_MIXED}"]
    caption = f"Scores of {report.main.name}. {_SHORT} {_reasons(rows)}".strip()
    header = ("overall score", *(nonbreaking(report.name(method)) for method in rows_of))
    compared = [
        (titles[name], *(number(found[place]["overall"]) for found in rows_of.values()))
        for place, name in enumerate(row["family"] for row in rows)
    ]
    return [
        Section("Representation scores", text, table=_score_table(rows, titles, caption)),
        Section("Overall scores of all methods", table=Table(header, compared)),
    ]


def readout_section(report: Robustness) -> Section:
    """Return the section on how well the levels are predicted from embeddings.

    Args:
        report: Results.
    """
    titles = {family.name: family.title for family in report.families}
    rows_of = _by_method(report.measured.readout)
    rows = []
    for each in rows_of[report.main.key]:
        cells = [
            number(next(row for row in found if row["family"] == each["family"])["pearson_r"])
            for found in rows_of.values()
        ]
        unit = each["unit"]
        error, mean = NONE, NONE
        if each["reason"] is None:
            error = f"{number(each['mae'], 1)} ({number(each['mae_low'], 1)} to {number(each['mae_high'], 1)}) {unit}"
            mean = f"{number(each['mae_mean'], 1)} {unit}"
        rows.append((titles[each["family"]], *cells, error, mean))
    text = [
        "The level is predicted from the embedding by ridge regression, cross-validated over source images. If it is "
        "predicted well, embeddings hold the setting of the microscope, and a classifier may learn it instead of the "
        "structure."
    ]
    header = (
        "change",
        *(nonbreaking(report.name(method)) for method in rows_of),
        "error",
        "error of the mean",
    )
    caption = (
        f"Pearson's r of predicted and true levels. Error: mean absolute error of {report.main.name}, with its 95 % "
        f"interval over source images; error of the mean: that of the mean level. {_reasons(report.measured.readout)}"
    ).strip()
    return Section("Is the setting visible in embeddings?", text, table=Table(header, rows, caption))


def batch_sections(report: Robustness) -> list[Section]:
    """Return the sections on real batches, for each column.

    Args:
        report: Results.
    """
    sections = []
    for column in report.measured.columns:
        effects = [row for row in report.measured.column_effects if row["family"] == column]
        rows_of = _by_method([row for row in report.measured.batches if row["column"] == column])
        rows = []
        for each in rows_of[report.main.key]:
            cells = []
            for method, found in rows_of.items():
                row = next(row for row in found if row["batch"] == each["batch"])
                text = _score(report, row["score"])
                if method == report.main.key and row["low"] is not None:
                    low, high = (_score(report, row[end]).removesuffix("\u00a0%") for end in ("low", "high"))
                    text += f" ({low} to {high})"
                cells.append(text)
            rows.append((each["batch"], f"{each['images']} ({each['sources']})", *cells))
        header = (column, "test images (sources)", *(nonbreaking(report.name(method)) for method in rows_of))
        sections.append(_column_effects(report, column, effects))
        lines = [
            "Scores of the predictions for unchanged test images, with the 95 % interval over source images of "
            f"{report.main.name} if there are at least {FEW_PER_CLASS}. Batches also differ by their images: an "
            "effect on accuracy is measured in the next section."
        ]
        sections.append(Section(f"Test images of each batch: {column}", lines, table=Table(header, rows)))
        sections.append(_new_batches(report, column))
        scores = [row for row in report.measured.column_scores if row["family"] == column]
        if scores:
            names = {row["method"]: report.name(row["method"]) for row in scores}
            table = _score_table(scores, names, f"{_SHORT} {_reasons(scores)}".strip(), key="method")
            sections.append(Section(f"Representation scores: {column}", [_MIXED], table=table))
    return sections


def _column_effects(report: Robustness, column: str, effects: Sequence[Mapping[str, Any]]) -> Section:
    """Return the section with the effect of a column on the embeddings of each method."""
    rows = [
        (
            report.name(row["method"]),
            number(row["size"]),
            f"{number(row['low'])} to {number(row['high'])}",
            number(row["corrected_p"], 4),
            "yes" if row["called"] else "no",
        )
        for row in effects
    ]
    count = effects[0]["sources"]
    lines = [_SIZE, f"Images of all splits are compared ({counted(count, 'source image')}), within classes."]
    header = ("method", "size", "95 % CI", "corrected p", "called")
    return Section(f"Real batches: {column}", lines, table=Table(header, rows, _reasons(effects)))


def _new_batches(report: Robustness, column: str) -> Section:
    """Return the section on batches that a probe has not seen."""
    rows_of = _by_method([row for row in report.measured.new_batches if row["column"] == column])
    rows, reasons = [], []
    for method, found in rows_of.items():
        for number_of, row in enumerate(found):
            name = nonbreaking(report.name(method)) if number_of == 0 else ""
            if row["reason"]:
                reasons.append(f"{row['batch']}: {row['reason']}")
                rows.append((name, row["batch"], str(row["images"]), *[NONE] * 4))
                continue
            ends = f"{_points(report, row['low'])} to {_points(report, row['high'])}"
            scores = (_score(report, row["new_batch"]), _score(report, row["known_batch"]))
            difference = f"{_points(report, row['difference'])} ({ends})"
            p_value = number(row["p_holm"], 3) + ("*" if row["p_holm"] < SIGNIFICANT else "")
            rows.append((name, row["batch"], str(row["images"]), *scores, difference, p_value))
    text = [
        "New batch: a probe is trained on the images of all other batches. Known batch: it is trained on as many "
        "images of each class from all batches, cross-validated over source images. The difference is what a new "
        "batch costs. An asterisk marks significant differences: the p-value of a paired permutation test over source "
        f"images, corrected by Holm's method for all batches of a method, is below {SIGNIFICANT}.",
        _cost_of_new_batches(report, rows_of[report.main.key]),
    ]
    unit = ", points" if "accuracy" in report.metric else ""
    header = (
        "method",
        column,
        "images",
        "new batch",
        "known batch",
        f"difference{unit} (95 % CI)",
        "corrected p",
    )
    return Section(f"New batches: {column}", text, table=Table(header, rows, "; ".join(dict.fromkeys(reasons))))


def _cost_of_new_batches(report: Robustness, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on the batches that cost the first method accuracy if it was not trained on them."""
    measured = [row for row in rows if not row["reason"]]
    if not measured:
        return "The cost of a new batch cannot be measured."
    costly = [row["batch"] for row in measured if row["p_holm"] < SIGNIFICANT and row["difference"] < 0]
    if costly:
        return f"New batches that significantly lower the score of {report.main.name}: {some_of(costly)}."
    return f"No new batch significantly lowers the score of {report.main.name}."


def _score_table(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], caption: str, key: str = "family"
) -> Table:
    """Return a table with a row of scores for each family or method."""
    columns = (*BATCH_SCORES, *BIOLOGY_SCORES, "batch", "biology", "overall")
    header = ("change" if key == "family" else "method", *(SCORE_NAMES[name] for name in columns))
    cells = [(names[row[key]], *(number(row[name]) for name in columns)) for row in rows]
    return Table(header, cells, caption)


def _by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows by method, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _effect(row: Mapping[str, Any], *, with_interval: bool) -> str:
    """Format the size of an effect; an asterisk marks an effect that is called."""
    text = number(row["size"]) + ("*" if row["called"] else "")
    if with_interval and row["size"] == row["size"]:
        text += f" ({number(row['low'])} to {number(row['high'])})"
    return text


def _not_called(rows_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return a sentence on the mark of called effects."""
    count = sum(row["called"] for rows in rows_of.values() for row in rows)
    if not count:
        return "No effect is called."
    return f"An asterisk marks the {counted(count, 'effect')} that {'is' if count == 1 else 'are'} called."


def _reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why values are missing, each reason once."""
    given = [reason for row in rows for reason in (row.get("reasons") or [row.get("reason")]) if reason]
    return f"Missing: {'; '.join(dict.fromkeys(given))}." if given else ""


def _score(report: Robustness, value: float | None) -> str:
    """Format the score of a batch."""
    if value is None:
        return NONE
    return f"{100 * value:.1f}\u00a0%" if "accuracy" in report.metric else f"{value:.3g}"


def _points(report: Robustness, value: float | None) -> str:
    """Format a difference of scores."""
    if value is None:
        return NONE
    return f"{100 * value:+.1f}" if "accuracy" in report.metric else f"{value:+.3g}"
