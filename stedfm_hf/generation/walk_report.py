"""Report of walks: the images along each walk, and the distances that were reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import tifffile
from matplotlib.figure import Figure

from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.following import slope_of, verdict
from stedfm_hf.reports.figures import INK, MUTED, PALETTE, save_figure, shortened, show_image, style
from stedfm_hf.reports.html import ReportFigure, Section, write_page

REPORT = "report.html"
FIGURES = "figures"
MOST_WALKS = 8
"""Largest number of walks that the report shows."""


def write_walk_report(folder: Path, table: pa.Table, direction: Direction) -> Path:
    """Write `report.html` and `figures/` of a folder of walks.

    Args:
        folder: Folder with the TIFFs.
        table: Table of the generated images.
        direction: Direction.

    Returns:
        Path of the page.
    """
    frame = table.to_pandas()
    own = frame[frame["direction"] == direction.name]
    shown = own.drop_duplicates("file").head(MOST_WALKS)
    sections = []
    if len(shown):
        png = save_figure(_strips(folder, own, list(shown["file"]), direction), folder / FIGURES, "walks")
        alt = f"Images along the direction {direction.name}"
        caption = (
            "Each row is a walk: the image, then images generated from its embedding moved along the direction, with "
            "the noise of the image. The numbers are the signed distance that was wanted, and that of the embedding "
            "of the generated image."
        )
        sections.append(Section("Walks", [_how_many(len(shown), own["file"].nunique())], [_figure(png, alt, caption)]))
        png = save_figure(_reached(frame, direction), folder / FIGURES, "reached")
        caption = "On the dashed line, the embedding of the generated image is where it was moved to."
        if frame["direction"].nunique() > 1:
            caption += " Grey: walks in random directions, whose images are in the files `random*.tif`."
        slope = slope_of(own)
        said = [] if slope is None else [f"{verdict(slope)} The slope is {slope:.2f}; 1 is ideal."]
        sections.append(Section("Distances", said, [_figure(png, "Wanted and reached distances", caption)]))
    score = direction.score
    facts = {"images": str(own["file"].nunique()), "steps": str(own["step"].nunique())}
    if score is not None:
        facts[f"held-out {score.name}"] = f"{score.value:.3f}"
    similarity = own["similarity"].dropna()
    if len(similarity):
        facts["reconstruction (SSIM)"] = f"{similarity.mean():.3f}"
    leads = f" from {direction.classes[0]} to {direction.classes[1]}" if direction.classes else ""
    return write_page(
        folder / REPORT,
        title=f"Walks along {direction.name}",
        lead=f"What images look like when their embedding moves along the direction {direction.name}{leads}.",
        facts=facts,
        sections=sections,
        footer="Generated images are not measurements: they show what the model has learnt.",
    )


def _figure(png: Path, alt: str, caption: str) -> ReportFigure:
    return ReportFigure.from_png(png, alt, caption)


def _how_many(shown: int, total: int) -> str:
    return f"{shown} of {total} walks." if shown < total else f"{total} walk{'' if total == 1 else 's'}."


def _strips(folder: Path, frame: pd.DataFrame, files: list[str], direction: Direction) -> Figure:
    """Plot one row of images per walk."""
    stacks = [_read(folder / file) for file in files]
    columns = max(len(stack) for stack in stacks)
    with style():
        figure = Figure(figsize=(1.45 * columns, 1.75 * len(files)), layout="constrained")
        axes = figure.subplots(len(files), columns, squeeze=False)
        for row, (file, stack) in enumerate(zip(files, stacks, strict=True)):
            steps = frame[frame["file"] == file].sort_values("step")
            for column, image in enumerate(stack):
                panel = axes[row, column]
                show_image(panel, image, limits=(0.0, max(float(np.percentile(stack, 99.8)), 1e-3)))
                if column:
                    step = steps.iloc[column - 1]
                    panel.set_title(f"{step['wanted']:+.1f} ({step['reached']:+.1f})", fontsize=8)
                else:
                    name = shortened(file.rsplit("/", 1)[-1].rpartition(".walk")[0], 20)
                    panel.set_title(f"{name} {steps['start'].iloc[0]:+.1f}", fontsize=8, parse_math=False)
    return figure


def _reached(table: pd.DataFrame, direction: Direction) -> Figure:
    """Plot the reached over the wanted distance, of the direction and of random directions."""
    with style():
        figure = Figure(figsize=(4.2, 3.4), layout="constrained")
        axes = figure.subplots()
        names = list(dict.fromkeys(table["direction"]))
        for name in names:
            rows = table[table["direction"] == name]
            own = name == direction.name
            axes.plot(
                rows["wanted"],
                rows["reached"],
                "o",
                markersize=4 if own else 3,
                color=PALETTE[0] if own else MUTED,
                alpha=0.8 if own else 0.4,
                label=name if own else ("random directions" if name == names[1] else None),
            )
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], "--", color=INK, linewidth=0.8)
        axes.set(xlabel="wanted distance", ylabel="reached distance")
        axes.legend()
    return figure


def _read(path: Path) -> np.ndarray:
    stack: np.ndarray = tifffile.imread(path)
    return stack
