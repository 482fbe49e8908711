"""Sentences that evaluation reports share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stedfm_hf.evaluation.report.content import MethodInfo

LEVEL = 0.05
"""Significance level of the comparisons."""
SIMULATED = "The images are simulated. Do not draw conclusions about real images."
OVERLAPPING = "Overlapping intervals do not show that two methods are equal: see the pairwise comparisons."
"""Caption of a table with confidence intervals."""
NOT_SIGNIFICANT = "A result that is not significant does not show that two methods are equal."
"""Explanation of a table with tests."""


def limitations(reasons: Sequence[str], *, simulated: bool) -> list[str]:
    """Return sentences on limitations, which precede all results.

    Args:
        reasons: Reasons why no conclusion can be drawn.
        simulated: Whether the images are simulated.
    """
    found = []
    if reasons:
        found.append(
            f"No conclusion can be drawn: {'; '.join(reasons)}. The metrics only show that the evaluation runs."
        )
    if simulated:
        found.append("The images are simulated: results on real images may differ.")
    return found


def verdicts(comparisons: Iterable[Mapping[str, Any]], name: Callable[[str], str]) -> str:
    """Describe the comparisons of one method with others.

    Args:
        comparisons: Rows with `other`, `difference` and `p_holm`.
        name: Function from the key of a method to its name.

    Returns:
        Text without a verb; empty without comparisons.

    Example:
        >>> rows = [{"other": "otsu", "difference": 0.2, "p_holm": 0.01}, {"other": "b", "difference": 0, "p_holm": 1}]
        >>> verdicts(rows, str.capitalize)
        'significantly better than Otsu; not significantly different from B'
    """
    groups: dict[str, list[str]] = {}
    for row in comparisons:
        better = "significantly better than" if row["difference"] > 0 else "significantly worse than"
        word = "not significantly different from" if row["p_holm"] >= LEVEL else better
        groups.setdefault(word, []).append(name(row["other"]))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in groups.items())


def permutation_tests(tested: str, swapped: str = "the scores of the two methods") -> str:
    """Return the sentences that explain paired permutation tests and their p-values.

    Args:
        tested: What is tested, and on which images.
        swapped: What a permutation swaps.
    """
    return (
        f"Paired permutation tests {tested}: p is the fraction of 10,000 random permutations, which swap {swapped} on "
        "whole source images, with a difference at least as large (two-sided). P-values are corrected for all tests "
        f"of this page by Holm's method; differences with a corrected p below {LEVEL} are significant."
    )


def baselines(methods: Sequence[MethodInfo], descriptions: Mapping[str, str]) -> list[str]:
    """Return one paragraph on each baseline among the methods.

    Args:
        methods: Models and baselines.
        descriptions: Description of each baseline, by key.
    """
    keys = {each.key for each in methods}
    return [description for key, description in descriptions.items() if key in keys]
