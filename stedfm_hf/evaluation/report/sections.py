"""Sections that evaluation reports share, and their page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stedfm_hf.evaluation.report.cells import NONE, nonbreaking
from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.evaluation.report.sentences import LEVEL
from stedfm_hf.labels.sourced import SourcedImages
from stedfm_hf.reports import Section, Table, write_page
from stedfm_hf.runs import counted


def comparison_section(
    comparisons: Sequence[Mapping[str, Any]],
    methods: Sequence[MethodInfo],
    *,
    header: Sequence[str],
    cells: Callable[[Mapping[str, Any]], Sequence[str]],
    text: str,
    limited: bool,
) -> Section:
    """Return the section of the pairwise comparisons.

    Args:
        comparisons: Rows of the comparisons.
        methods: Models, then baselines.
        header: Column names between the methods and the p-values.
        cells: Function from a row to the cells of these columns.
        text: Explanation of the test.
        limited: Whether there are too few source images for the tests.
    """
    names = {each.key: nonbreaking(each.name) for each in methods}
    single_model = sum(each.kind != "baseline" for each in methods) == 1
    rows = []
    for each in comparisons:
        model, other = names[each["model"]], names[each["other"]]
        label = "yes" if each["p_holm"] < LEVEL else "no"
        compared = other if single_model else f"{model} − {other}"
        rows.append((compared, *cells(each), _p(each["p"]), _p(each["p_holm"]), label))
    lines = [text, *(["There are too few source images to interpret these tests."] if limited else [])]
    first = f"{methods[0].name} compared with" if single_model else "methods"
    return Section(
        "Pairwise comparisons", lines, table=Table((first, *header, "p", "corrected p", "significant"), rows)
    )


def failed_section(title: str, failed: Mapping[str, str]) -> list[Section]:
    """Return the section of failed images, if there are any.

    Args:
        title: Title of the section.
        failed: Reason why an image failed, by its image id.
    """
    return [Section(title, table=Table(("image", "reason"), list(failed.items())))] if failed else []


def method_section(text: Sequence[str], methods: Sequence[MethodInfo], noun: str) -> Section:
    """Return the last section: protocol and weights.

    Args:
        text: Paragraphs on the protocol.
        methods: Models and baselines.
        noun: Name of a method, such as "model".
    """
    rows = [(each.name, each.key, (each.weights_sha256 or NONE)[:12]) for each in methods]
    return Section("Methods", text, table=Table((noun, "identifier", "weights (SHA-256)"), rows))


def write_report_page(
    path: Path,
    *,
    command: str,
    title: str,
    lead: Iterable[str],
    test: SourcedImages[Any],
    splits: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, str],
    sections: Sequence[Section],
    files: str,
) -> None:
    """Write the HTML page of an evaluation of models on images.

    Args:
        path: File to write.
        command: Name of the command.
        title: What is evaluated.
        lead: Sentences of the main results, which open the page.
        test: Test images.
        splits: Numbers of images and source images, by split.
        facts: Further facts at the top of the page.
        sections: Sections of the page.
        files: Files of the folder, as a list in words.
    """
    images = {
        f"{name} images": f"{split['images']} from {counted(split['sources'], 'source')}"
        for name, split in splits.items()
    }
    write_page(
        path,
        title=f"{title}: {test.name}{' (simulated images)' if test.simulated else ''}",
        lead=" ".join(lead),
        facts={**images, **facts, **({"images": "simulated"} if test.simulated else {})},
        sections=sections,
        footer=footer(command, files),
    )


def footer(command: str, files: str) -> str:
    """Return the last line of a page.

    Args:
        command: Name of the command.
        files: Files of the folder, as a list in words.
    """
    return f"Made by stedfm {command} (package stedfm-hf). This page is self-contained. The folder also holds {files}."


def _p(value: float) -> str:
    """Format a p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
