"""Figures of a training of the diffusion model: sheets of samples, and the curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stedfm_hf.reports.figures import MUTED, PALETTE, label_colours, save_figure, show_image, style
from stedfm_hf.training.generation.curve import GenerationRow


@dataclass(frozen=True, eq=False)
class SampleRow:
    """Held-out crop, and samples with its condition.

    Attributes:
        original: Crop (H, W), scaled to [0, 1].
        samples: Samples (H, W), in [0, 1].
        label: Name of the class of the crop, or None.
        pixel_size_nm: Size of a pixel in nm, for a scale bar, or None.
    """

    original: np.ndarray
    samples: list[np.ndarray]
    label: str | None = None
    pixel_size_nm: float | None = None


def save_sheet(rows: Sequence[SampleRow], folder: Path, name: str) -> Path:
    """Write a sheet: a row for each held-out crop, with samples that have its condition.

    Args:
        rows: Rows of the sheet; all intensities are shown from 0 to 1.
        folder: Folder of the sheet.
        name: Name of the file, without suffix.

    Returns:
        Path of the PNG file.
    """
    columns = 1 + len(rows[0].samples)
    with style():
        figure = Figure(figsize=(1.3 * columns, 1.3 * len(rows) + 0.2))
        axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
        colours = label_colours(each.label for each in rows if each.label is not None)
        for line, each in zip(axes, rows, strict=True):
            for number, (ax, image) in enumerate(zip(line, [each.original, *each.samples], strict=True)):
                scale = each.pixel_size_nm if number == 0 else None
                show_image(ax, image, limits=(0.0, 1.0), pixel_size_nm=scale)
            if each.label is not None:
                line[0].set_ylabel(each.label, color=colours[each.label], fontsize=8.0)
        axes[0][0].set_title("held-out crop")
        axes[0][1].set_title("samples with its condition", loc="left")
        return save_figure(figure, folder, name)


def plot_curve(rows: Sequence[GenerationRow]) -> Figure:
    """Plot the losses over the steps, and the Fréchet distances.

    Args:
        rows: Rows of the curve.
    """
    distances = [
        (name, title)
        for name, title in (("frechet_embedding", "embeddings"), ("frechet_texture", "texture and morphology"))
        if any(getattr(row, name) is not None for row in rows)
    ]
    with style():
        figure = Figure(figsize=(3.6 * (1 + len(distances)), 3.0), layout="constrained")
        axes = figure.subplots(1, 1 + len(distances), squeeze=False)[0]
        for name, label, colour in (("loss", "training loss", MUTED), ("held_out_loss", "held-out loss", PALETTE[0])):
            known = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
            if known:
                axes[0].plot(*zip(*known, strict=True), color=colour, label=label, lw=1.4)
        axes[0].set(xlabel="optimiser step", ylabel="loss", yscale="log")
        axes[0].legend()
        for ax, (name, title) in zip(axes[1:], distances, strict=True):
            known = [(row.step, getattr(row, name)) for row in rows if getattr(row, name) is not None]
            ax.plot(*zip(*known, strict=True), "o-", markersize=3.0, color=PALETTE[0], label="samples")
            real = [getattr(row, f"{name}_real") for row in rows if getattr(row, f"{name}_real") is not None]
            if real:
                ax.axhline(real[-1], color=PALETTE[1], ls=(0, (5, 3)), lw=1.4, label="other held-out crops")
            ax.set(xlabel="optimiser step", ylabel=f"Fréchet distance ({title})", yscale="log")
            ax.legend()
        for ax in axes:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        return figure
