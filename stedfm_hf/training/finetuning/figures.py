"""The curve of a fine-tuning as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stedfm_hf.reports.figures import MUTED, PALETTE, style
from stedfm_hf.training.finetuning.watching import CheckRow


def draw_curve(rows: Sequence[CheckRow], figure_name: str, *, best_step: int | None = None) -> Figure:
    """Losses over the steps, and what the best model was chosen by.

    Args:
        rows: of the curve, one at least.
        figure_name: name of the validation figure.
        best_step: is marked.
    """
    with style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, label, colour in (
            ("loss", "training", MUTED),
            ("validation_loss", "validation", PALETTE[0]),
        ):
            known = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
            if known:
                left.plot(*zip(*known, strict=True), "o-", markersize=3.0, color=colour, label=label)
        left.set(xlabel="step", title="loss")
        left.legend()
        known = [(row.step, row.validation_figure) for row in rows if row.validation_figure is not None]
        finite = [(step, value) for step, value in known if np.isfinite(value)]
        if finite:
            right.plot(*zip(*finite, strict=True), "o-", markersize=3.0, color=PALETTE[0])
        if best_step is not None:
            right.axvline(best_step, color=PALETTE[1], ls=(0, (5, 3)), lw=1.2, label=f"best: step {best_step}")
            right.legend()
        right.set(xlabel="step", title=f"validation {figure_name.replace('_', ' ')}")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return figure
