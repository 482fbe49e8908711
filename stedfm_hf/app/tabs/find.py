"""Tab `Find structures`: score map and ranked regions of a finder, or of places that are clicked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from skimage.draw import disk

from stedfm_hf.acquisition.finder_files import StoredFinder
from stedfm_hf.acquisition.finders import TemplateFinder
from stedfm_hf.acquisition.finding_run import find_writer
from stedfm_hf.acquisition.score_maps import example_patches
from stedfm_hf.acquisition.settings import FindSettings
from stedfm_hf.acquisition.writing import region_table
from stedfm_hf.app.page import Page, Updates, cells, downloads, listed, opened, picture, position_in
from stedfm_hf.app.viewing import OpenedImage, write_picture, zoom_of
from stedfm_hf.app.visits import Visit
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.inference.one_image import BATCH_SIZE, at_pixels, prepare_image
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.inference.tables import write_csv
from stedfm_hf.interpretability.fields import tiles_of
from stedfm_hf.runs import UserError, counted

CLICKED, STRUCTURE = "places that you click", "structure"
"""Choice of clicked places, and name of their class."""
COLUMNS = {
    "rank": "rank",
    "label": "class",
    "score": "score",
    "centre_y_px": "centre, row",
    "centre_x_px": "centre, column",
    "centre_y_um": "centre, y (µm)",
    "centre_x_um": "centre, x (µm)",
}
"""Columns of the table of the page, with their headings."""
COUNT = 10
"""Default number of regions of a class."""


def add_find(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    finders, encoder = page.models.finders, page.models.encoder
    choices = [*finders, CLICKED]
    gr.Markdown(
        "Find the regions to image next: click a structure in the image, and the others like it are marked. Click "
        "more of them to find more kinds."
        + (
            ""
            if finders
            else " With `stedfm app --finder FOLDER`, this tab applies a finder that you have fitted to annotations."
        )
    )
    choice = gr.Radio(choices, value=choices[0], label="Find with", visible=bool(finders), elem_id="find-with")
    with gr.Row(visible=not finders) as places_box:
        places = gr.Textbox(
            "",
            label="Clicked places: row, column; row, column",
            elem_id="find-places",
            placeholder="120, 200; 310, 90",
        )
        clear = gr.Button("Clear places", size="md", min_width=120)
    with gr.Row():
        size = gr.Number(
            64, label="Size of a region, in pixels", precision=0, minimum=1, elem_id="find-size", min_width=120
        )
        count = gr.Number(
            COUNT, label="Largest number of regions", precision=0, minimum=1, elem_id="find-count", min_width=120
        )
    button = gr.Button("Find structures", variant="primary", size="md", elem_id="find-button")
    message = page.message()
    with page.result("image") as result:
        with gr.Row():
            shown = picture("Regions by rank", "The image with the regions marked", elem_id="find-regions")
            score_map = picture("Score of each patch", "Map of the scores", elem_id="find-map")
        summary = gr.HTML(container=False, elem_id="find-summary")
        table = gr.Dataframe(headers=list(COLUMNS.values()), interactive=False, label="Regions", max_height=320)
        files = downloads()

    def run(visit: Visit, chosen: str, text: str, size_px: float | None, most: float | None) -> Updates:
        """Score the image, and write the files of `stedfm find`."""
        image = opened(visit)
        if chosen == CLICKED:
            clicks = [position_in(image, *each) for each in parse_places(text)]
            stored, loaded = fit_to_clicks(encoder, image, clicks), encoder
        else:
            (stored, loaded), clicks = finders[chosen], []
        prepared = prepare_image(loaded, image.for_model(loaded.model.config.num_channels), stored.record["scaling"])
        ((fact, pixels),) = prepared
        with visit.new_folder("find") as folder:
            settings = FindSettings(
                [image.name],
                "finder",
                output=folder,
                count=int(most or COUNT),
                region_size_px=float(size_px or 64),
                batch_size=BATCH_SIZE,
            )
            writer = find_writer(settings, folder, stored, loaded, None)
            written = fact | writer(fact, pixels)
            found = region_table([(written, np.empty(0))], loaded)
            name = Path(image.name).stem
            pq.write_table(found, folder / f"{name}.regions.parquet")
            write_csv(found, folder / f"{name}.regions.csv")
            tiff, figure, rois = (
                folder / f"{fact['path']}.{kind}" for kind in ("scores1.tif", "regions1.png", "rois1.zip")
            )
            view, heat = folder / f"{name}.marked.png", folder / f"{name}.scores.png"
            low, high = _show(image, found, tiff, view, heat)
        tables = (folder / f"{name}.regions.csv", folder / f"{name}.regions.parquet")
        rows = found.select(list(COLUMNS)).to_pylist()
        kept = [each for each in COLUMNS if not rows or rows[0][each] is not None]
        caption = (
            f"{counted(len(rows), 'region')}. {stored.finder.quantity.capitalize()} of the best class from {low:.2f} "
            f"(black) to {high:.2f} (bright)."
        )
        if clicks:
            caption += f" Templates: the patches at {counted(len(clicks), 'place')}; all other patches are background."
        if (warning := stored.warning) is not None:
            caption += f" Warning: {warning}."
        if "remark" in written:
            remark = written["remark"]
            caption += f" {remark[0].upper()}{remark[1:]}."
        return {
            shown: str(view),
            score_map: str(heat),
            summary: cells(caption),
            table: gr.Dataframe(
                [[_text(row[each]) for each in kept] for row in rows],
                headers=[COLUMNS[each] for each in kept],
                visible=bool(rows),
            ),
            files: listed(*tables, tiff, figure, rois),
        }

    def select(visit: Visit, position: Any, _: str, text: str, size_px: float | None, most: float | None) -> Updates:
        """Add the clicked place, and find structures like those at all places."""
        image = opened(visit)
        y, x = zoom_of((image.plane.shape[0], image.plane.shape[1])).pixel_at(*position)
        text = f"{text}; {y}, {x}" if text.strip() else f"{y}, {x}"
        new = {choice: CLICKED, places: text, places_box: gr.Row(visible=True)}
        return new | run(visit, CLICKED, text, size_px, most)

    def show_places(_: Visit, chosen: str) -> Updates:
        return {places_box: gr.Row(visible=chosen == CLICKED)}

    def clear_places(_: Visit) -> Updates:
        return {places: "", result: gr.Column(visible=False)}

    inputs, results = [choice, places, size, count], [shown, score_map, summary, table, files]
    page.on([choice.change], show_places, [choice], [places_box], message)
    page.on([clear.click], clear_places, [], [places, result], message)
    page.on([button.click], run, inputs, results, message, computes=True, shows=result)
    changed = [choice, places, places_box, *results]
    for each in (page.view, shown):
        page.on([each.select], select, inputs, changed, message, computes=True, shows=result, in_open_tab=True)


def parse_places(text: str) -> list[tuple[int, int]]:
    """Read the positions of clicks.

    Args:
        text: Row and column of each place, in pixels, separated by semicolons.

    Returns:
        Rows and columns.

    Raises:
        UserError: If there is none, or one is not a pair of numbers.

    Example:
        >>> parse_places("120, 200; 310, 90")
        [(120, 200), (310, 90)]
    """
    found = []
    for part in (each for each in text.split(";") if each.strip()):
        pair = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", part)
        if pair is None:
            raise UserError(f"{part.strip()} is not a place; enter its row and its column, such as 120, 200")
        found.append((int(pair[1]), int(pair[2])))
    if not found:
        raise UserError("no place is clicked; click a structure in the image, or enter its row and its column")
    return found


def fit_to_clicks(encoder: Encoder, image: OpenedImage, clicks: list[tuple[int, int]]) -> StoredFinder:
    """Make templates of the patches at clicked places, as `stedfm finder fit --clicks` does.

    Args:
        encoder: Encoder of the app.
        image: Image.
        clicks: Rows and columns of the clicks, in pixels of the file.

    Returns:
        Finder with the class `structure`; all patches that no click touches are background.
    """
    scaling = scaling_of(encoder, None, None)
    ((_, pixels),) = prepare_image(encoder, image.for_model(encoder.model.config.num_channels), scaling)
    tiles = tiles_of(encoder, "auto", None, BATCH_SIZE)
    shape = (pixels.shape[1], pixels.shape[2])
    factors = [new / old for new, old in zip(shape, image.plane.shape, strict=True)]
    marked = np.zeros((1, *shape), bool)
    for y, x in clicks:
        marked[0][disk((y * factors[0], x * factors[1]), tiles.patch_size / 2, shape=shape)] = True
    examples = example_patches(encoder, tiles, pixels, marked, np.ones(shape, bool), (STRUCTURE,), 0)
    record = {"protocol": "default", "scaling": scaling}
    return StoredFinder(TemplateFinder.fit(examples), record)


def _show(image: OpenedImage, found: pa.Table, tiff: Path, view: Path, heat: Path) -> tuple[float, float]:
    """Write the picture with the regions and that of the best score of each patch; return its limits."""
    values = tifffile.imread(tiff)
    best = values.max(axis=0) if values.ndim == 3 else values
    rows = found.to_pylist()
    boxes = {str(row["rank"]): (row["y_px"], row["x_px"], row["height_px"], row["width_px"]) for row in rows}
    write_picture(view, image.plane, image.limits, image.pixel_width_nm, boxes=boxes)
    height, width = image.plane.shape
    low, high = float(best.min()), float(best.max())
    cell = (height / best.shape[0], width / best.shape[1])
    write_picture(heat, at_pixels(best, (height, width), cell), (low, high), None, colour_map="inferno", boxes=boxes)
    return low, high


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
