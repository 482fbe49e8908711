"""Text of numbers, names and intervals in reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "–"
"""Text of an undefined value."""


def nonbreaking(name: str) -> str:
    """Replace spaces and hyphens by non-breaking ones.

    Args:
        name: Name in a table.

    Example:
        >>> nonbreaking("raw pixel") == "raw" + chr(160) + "pixel"
        True
    """
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def decimals(value: float | None) -> str:
    """Format a metric with three decimals.

    Args:
        value: Metric; None if it is undefined.

    Example:
        >>> decimals(0.5), decimals(None)
        ('0.500', '–')
    """
    return NONE if value is None else f"{value:.3f}"


def interval(row: Mapping[str, Any]) -> str:
    """Format a confidence interval.

    Args:
        row: Row with the ends `low` and `high`.

    Example:
        >>> interval({"low": 0.25, "high": 0.5})
        '0.250 to 0.500'
    """
    return NONE if row["low"] is None else f"{decimals(row['low'])} to {decimals(row['high'])}"


def with_interval(row: Mapping[str, Any]) -> str:
    """Format a mean with its confidence interval, for a sentence.

    Args:
        row: Row with `mean`, `low` and `high`.
    """
    ends = "" if row["low"] is None else f" (95\u00a0% confidence interval {interval(row)})"
    return f"{decimals(row['mean'])}{ends}"


def difference_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    """Format the difference of a comparison, and its confidence interval.

    Args:
        row: Row with `difference`, `low` and `high`.

    Example:
        >>> difference_cells({"difference": 0.5, "low": -0.25, "high": 1})
        ('+0.500', '-0.250 to +1.000')
    """
    return f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}"
