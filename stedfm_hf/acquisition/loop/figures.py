"""Figures of `evaluate acquisition`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from stedfm_hf.acquisition.loop.comparison import curves, interval
from stedfm_hf.acquisition.loop.fields import EmbeddedField
from stedfm_hf.acquisition.loop.policies import POLICIES, Policy, ScoredPolicy
from stedfm_hf.acquisition.loop.power import PowerRow
from stedfm_hf.acquisition.loop.running import Step
from stedfm_hf.acquisition.loop.scenes import Scene
from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.reports.figures import GRID, MUTED, PALETTE, label_colours, scale_bar, show_image, style

COLOURS = dict(zip(POLICIES, ("#7A7A7A", "#56B4E9", "#E69F00", "#0072B2", "#009E73", "#CC79A7"), strict=True))
HIT, MISS, TARGET = "#2FD08A", "#C9D1D9", "#FFFFFF"
_ACQUIRED = 9
_WIDEST = 5.0


@dataclass(frozen=True, eq=False)
class Shown:
    """Search for one target in one sample.

    Attributes:
        scene: Sample.
        field: Overview.
        target: Kind of the objects to find.
        seed: Seed.
        regions: Largest number of regions to show.
        runs: Policy, steps and images of each loop.
    """

    scene: Scene
    field: EmbeddedField
    target: str
    seed: int
    regions: int
    runs: list[tuple[Policy, list[Step], list[Frame]]]


def plot_scene(shown: Shown) -> Figure:
    """Plot the regions of each policy on what it looked at, and the images that the last one acquired.

    Args:
        shown: Search.
    """
    panels = len(shown.runs) + 2
    columns = 2  # so that panels stay large on a phone
    lines = -(-panels // columns)
    overview = shown.field.frame
    with style():
        figure = Figure(figsize=(3.1 * columns, 3.35 * lines), layout="constrained")
        first, *others = figure.subplots(lines, columns, squeeze=False).flat
        _show_overview(first, overview)
        circles = _circle(first, shown, TARGET)
        scale_bar(first, overview.pixels.shape, overview.pixel_size_nm[1], avoid=circles)
        first.set_title(f"overview; circles: {shown.target.replace('_', ' ')}")
        for axes, (policy, steps, _) in zip(others, shown.runs, strict=False):
            if isinstance(policy, ScoredPolicy):
                show_image(axes, policy.scores(0), colour_map="gray")
                axes.get_images()[0].set_extent(_extent(shown.field))
                axes.set(xlim=(-0.5, overview.pixels.shape[1] - 0.5), ylim=(overview.pixels.shape[0] - 0.5, -0.5))
            else:
                _show_overview(axes, overview, dim=True)
            kept = steps[: shown.regions + 1]
            axes.set_title(f"{policy.name}: {kept[-1].found} found", color=COLOURS[policy.name])
            _mark(axes, kept, policy.region_um, overview)
        _show_acquired(others[len(shown.runs)], shown)
        for axes in others[len(shown.runs) + 1 :]:
            axes.set_axis_off()
    return figure


def _show_overview(axes: Axes, overview: Frame, *, dim: bool = False) -> None:
    limits = 0.0, float(np.percentile(overview.pixels, 99.8)) * (2 if dim else 1)
    show_image(axes, overview.pixels, limits=limits, colour_map="gray")


def _extent(field: EmbeddedField) -> tuple[float, float, float, float]:
    """Return where a map of patches is in the overview, in pixels."""
    rows, cols = field.tiles.grid(field.pixels.shape)
    down, across = field.cell
    return -0.5, cols * across - 0.5, rows * down - 0.5, -0.5


def _circle(axes: Axes, shown: Shown, colour: str) -> np.ndarray:
    """Mark the objects of the target with circles, and return their centres (n, 2) as x and y, in pixels."""
    frame, scene = shown.field.frame, shown.scene
    factor = frame.pixel_size_nm[0] / scene.pixel_size_nm
    centres = [scene.centres[number - 1][::-1] / factor for number in scene.objects(shown.target)]
    for x, y in centres:
        axes.add_patch(
            Circle((x, y), 0.8 * 1000 / frame.pixel_size_nm[0], fill=False, edgecolor=colour, linewidth=1.2)
        )
    return np.reshape(centres, (-1, 2))


def _mark(axes: Axes, steps: Sequence[Step], region_um: float, overview: Frame) -> None:
    """Mark the regions with their numbers; those in which an object was found stand out."""
    size_um = overview.pixel_size_nm[0] / 1000
    size, offset = region_um / size_um, overview.stage[:, 2]
    for before, step in zip(steps, steps[1:], strict=False):
        if step.x_um is None or step.y_um is None:
            continue
        x, y = ((at - start) / size_um for at, start in zip((step.x_um, step.y_um), offset, strict=True))
        hit = step.found > before.found
        colour = HIT if hit else MISS
        axes.add_patch(
            Rectangle(
                (x - size / 2, y - size / 2), size, size, fill=False, edgecolor=colour, linewidth=1.6 if hit else 0.8
            )
        )
        _number(axes, x - size / 2 + 1, y - size / 2 + 1, step.regions, colour)


def _number(axes: Axes, x: float, y: float, number: int, colour: str) -> None:
    """Write the number of a region into its corner, readable on any image."""
    text = axes.text(x, y, str(number), color=colour, va="top", fontsize=7.5, fontweight="bold")
    text.set_path_effects([patheffects.withStroke(linewidth=1.8, foreground="black", alpha=0.85)])


def _show_acquired(axes: Axes, shown: Shown) -> None:
    """Show the first images that the last policy acquired."""
    policy, steps, frames = shown.runs[-1]
    chosen = [np.pad(frame.pixels, 2) for frame in frames[:_ACQUIRED]]
    columns = int(np.ceil(np.sqrt(len(chosen))))
    chosen += [np.zeros_like(chosen[0])] * (-len(chosen) % columns)
    sheet = np.concatenate([np.hstack(chosen[at : at + columns]) for at in range(0, len(chosen), columns)])
    show_image(axes, sheet, limits=(0, float(np.percentile(sheet, 99.5)) or 1.0))
    scale_bar(axes, (sheet.shape[0], sheet.shape[1]), frames[0].pixel_size_nm[1])
    axes.set_title(f"first images of {policy.name}")
    size = chosen[0].shape[0]
    for number, (before, step) in enumerate(zip(steps, steps[1 : 1 + min(len(frames), _ACQUIRED)], strict=False)):
        row, col = divmod(number, columns)
        hit = step.found > before.found
        _number(axes, col * size + 4, row * size + 4, step.regions, HIT if hit else MISS)


def plot_curve(table: pa.Table, used: str, most: float, label: str) -> Figure:
    """Plot the objects found against dose or time, with the 95 % interval over seeds.

    Args:
        table: Table of curves.
        used: Column of the dose or the time.
        most: Largest value to show.
        label: Name of the quantity, with its unit.
    """
    grid = np.linspace(0, most, 240)
    with style():
        figure = Figure(figsize=(5.6, 3.5), layout="constrained")
        axes = figure.subplots()
        found = curves(table, used, grid)
        # Curves of policies that find equally many lie on each other: the wider ones below stay visible.
        for (name, values), width in zip(found.items(), np.linspace(_WIDEST, 1.2, len(found)), strict=True):
            mean = values.mean(axis=0)
            axes.plot(grid, mean, color=COLOURS[name], label=name, linewidth=width, marker="o", markevery=[-1])
            if len(values) > 1:
                bounds = np.array([[each["low"], each["high"]] for each in map(interval, values.T)], np.float64)
                axes.fill_between(
                    grid, bounds[:, 0].clip(0), bounds[:, 1], color=COLOURS[name], alpha=0.14, linewidth=0
                )
        axes.set(xlabel=label, ylabel="objects of the target found", xlim=(0, 1.04 * most))
        axes.set_ylim(-0.04 * axes.get_ylim()[1])  # lines at 0 are not cut
        axes.axvline(most, color=MUTED, linewidth=0.9, linestyle=":")
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.legend(loc="upper left")
    return figure


def plot_resolution(rows: Sequence[PowerRow]) -> Figure:
    """Plot resolution against the power of the depletion beam: mean and range over seeds.

    Args:
        rows: Simulated images.
    """
    with style():
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.subplots()
        for name, colour in label_colours(each.structure for each in rows).items():
            _plot_power(axes, rows, name, colour, lambda row: row.resolution_nm)
        axes.set(ylabel="resolution in nm", ylim=(0, None))
        _label_power(axes)
    return figure


def plot_bleaching(rows: Sequence[PowerRow]) -> Figure:
    """Plot bleaching against the power of the depletion beam: mean and range over seeds.

    Args:
        rows: Simulated images.
    """
    with style():
        figure = Figure(figsize=(5.6, 3.0), layout="constrained")
        axes = figure.subplots()
        for name, colour in label_colours(each.structure for each in rows).items():
            powers = _plot_power(axes, rows, name, colour, lambda row: 100 * row.bleached)
            loss = [np.mean([row.signal_loss for row in _at(rows, name, power)]) for power in powers]
            axes.plot(powers, 100 * np.array(loss), "x", color=colour, markersize=5)
        axes.plot([], [], "x", color=PALETTE[-1], label="loss of confocal signal")
        axes.set(ylabel="bleached by one image in %", ylim=(min(0, axes.get_ylim()[0]), 100))
        _label_power(axes)
    return figure


def _at(rows: Sequence[PowerRow], structure: str, power: float) -> list[PowerRow]:
    return [row for row in rows if (row.structure, row.depletion_mw) == (structure, power)]


def _plot_power(
    axes: Axes, rows: Sequence[PowerRow], structure: str, colour: str, value: Callable[[PowerRow], float]
) -> list[float]:
    """Plot mean and range over seeds of a value, where it is known; return the powers."""
    powers = sorted({row.depletion_mw for row in rows})
    known = {
        power: [each for row in _at(rows, structure, power) if np.isfinite(each := value(row))] for power in powers
    }
    known = {power: values for power, values in known.items() if values}
    axes.plot(
        list(known), [np.mean(each) for each in known.values()], "o-", color=colour, markersize=3.5, label=structure
    )
    axes.vlines(list(known), [min(each) for each in known.values()], [max(each) for each in known.values()], colour)
    return powers


def _label_power(axes: Axes) -> None:
    axes.set(xlabel="power of the depletion beam in mW")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.legend()
