"""How well generated images follow a direction: the slope of reached over wanted distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PARTLY, NOT = 0.5, 0.25
"""Slopes below which images follow a direction only in part, and not at all."""


def slope_of(rows: pd.DataFrame) -> float | None:
    """Return the slope of the reached over the wanted distances within walks: 1 if images follow, 0 if not.

    Args:
        rows: Columns `file` (one for each walk), `wanted` and `reached`.

    Returns:
        Slope, or None if all wanted distances of each walk are equal.

    Example:
        >>> import pandas as pd
        >>> slope_of(pd.DataFrame({"file": ["a", "a"], "wanted": [0.0, 2.0], "reached": [0.5, 1.5]}))
        0.5
    """
    wanted, reached = (rows[name] - rows.groupby("file")[name].transform("mean") for name in ("wanted", "reached"))
    spread = float((wanted**2).sum())
    return float((wanted * reached).sum()) / spread if spread else None


def verdict(slope: float) -> str:
    """Return what a slope means, as a sentence.

    Args:
        slope: Result of `slope_of`.

    Example:
        >>> verdict(0.9)
        'The generated images follow the direction.'
    """
    if slope < NOT:
        return "The generated images do not follow the direction: do not interpret them."
    if slope < PARTLY:
        return "The generated images follow the direction only in part."
    return "The generated images follow the direction."
