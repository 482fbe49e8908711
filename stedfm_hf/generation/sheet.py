"""Sheet of generated images next to the images that they were generated from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import tifffile
from matplotlib.figure import Figure

from stedfm_hf.reports.figures import save_figure, shortened, show_image, style

MOST_ROWS, MOST_COLUMNS = 10, 8


def save_sheet(folder: Path, table: pa.Table) -> Path:
    """Write `generated.png` and `.svg`: a row for each of the first images, with the images generated from it.

    Args:
        folder: Folder with the TIFFs.
        table: Table with the columns `file` and `similarity`.

    Returns:
        Path of the PNG.
    """
    files = list(dict.fromkeys(table["file"].to_pylist()))[:MOST_ROWS]
    stacks = [np.asarray(tifffile.imread(folder / file)) for file in files]
    columns = min(max((len(stack) for stack in stacks), default=1), MOST_COLUMNS + 1)
    with style():
        figure = Figure(figsize=(1.45 * columns, 1.65 * max(1, len(stacks))), layout="constrained")
        axes = figure.subplots(max(1, len(stacks)), columns, squeeze=False)
        for panels in axes:
            for panel in panels:
                panel.set_axis_off()
        for file, stack, panels in zip(files, stacks, axes, strict=False):
            limits = (0.0, max(float(np.percentile(stack, 99.8)), 1e-3))
            for panel, image, number in zip(panels, stack, range(columns), strict=False):
                panel.set_axis_on()
                show_image(panel, image, limits=limits)
                name = shortened(file.rsplit("/", 1)[-1].rpartition(".generated")[0], 20)
                panel.set_title(name if number == 0 else "generated", fontsize=8, parse_math=False)
    return save_figure(figure, folder, "generated")
