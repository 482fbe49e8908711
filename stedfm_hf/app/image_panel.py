"""Part of the page that opens an image: upload or example, series and channel, picture and display range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from stedfm_hf.app.page import Page, Updates, cells, opened, picture
from stedfm_hf.app.viewing import OpenedImage, open_image, write_picture
from stedfm_hf.app.visits import Visit
from stedfm_hf.reports.figures import automatic_limits
from stedfm_hf.runs import UserError


@dataclass(frozen=True, eq=False)
class ImagePanel:
    """Components of the part of the page that opens an image.

    Attributes:
        message: Component for messages.
        outputs: Components that change with the image.
        open_example: Function that opens an example for a visit, and returns the new values of the components.
        connect: Function that connects the events, once all results are part of the page.
    """

    message: Any
    outputs: list[Any]
    open_example: Callable[[Visit, str], Updates]
    connect: Callable[[], None]


def add_image_panel(page: Page, slot: str, *, with_range: bool) -> ImagePanel:
    """Add the part of the page that opens an image.

    Args:
        page: The page.
        slot: Name of the image in the visit.
        with_range: Whether the display range can be changed; otherwise it is that of the first image.
    """
    what = "image" if slot == "image" else "second image"
    gr.HTML(f'<p class="picture-title">File of the {what}</p>', container=False)
    file = gr.File(label=f"File of the {what}", show_label=False, elem_id=f"{slot}-file", height=110)
    if slot == "image":
        limits = f"{page.settings.max_file_mb:g} MB, {page.settings.max_megapixels:g} million pixels"
        kinds = ".msr, .obf, .tif, .png, .npy and other microscope files"
        gr.HTML(cells(f"{kinds}, 8 to 32 bit, up to {limits}."), container=False)
    with gr.Row(elem_classes="examples"):
        buttons = {name: gr.Button(f"Example: {name.lower()}", size="sm", min_width=120) for name in page.examples}
    message = page.message()
    with gr.Row():
        series = gr.Dropdown(label="Series", visible=False, interactive=True, elem_id=f"{slot}-series")
        channel = gr.Dropdown(label="Channel", visible=False, interactive=True, elem_id=f"{slot}-channel")
    height = None if slot == "image" else 220
    alt_text = f"The {what}, in grey levels with a scale bar"
    view = picture(what.capitalize(), alt_text, elem_id=f"{slot}-view", height=height)
    if slot == "image":
        page.view = view
    facts = gr.HTML(visible=False, container=False)
    with gr.Column(visible=False) as range_box:
        low = gr.Slider(label="Black at", elem_id=f"{slot}-low", buttons=[])
        high = gr.Slider(label="White at", elem_id=f"{slot}-high", buttons=[])
        automatic = gr.Button("Automatic display range", size="sm")
        gr.HTML(
            cells("The display range changes only how the image is shown. Models always get the pixels of the file.")
        )

    def shown(visit: Visit) -> Updates:
        """Return the values of the components for the opened image."""
        image = opened(visit, slot)
        first, last = image.range()
        step = 1 if image.plane.dtype.kind in "iu" else (last - first) / 1000
        several = len(image.series) > 1, len(image.image.channel_names) > 1
        limits = [
            gr.Slider(minimum=first, maximum=last, step=step, value=_rounded(value, image.plane))
            for value in image.limits
        ]
        return {
            series: gr.Dropdown(
                choices=[(each.name, number) for number, each in enumerate(image.series)],
                value=image.number,
                visible=several[0],
            ),
            channel: gr.Dropdown(
                choices=[(name, number) for number, name in enumerate(image.image.channel_names)],
                value=image.channel,
                visible=several[1],
            ),
            facts: gr.HTML(cells(f"{image.name}: {image.describe()}"), visible=True),
            range_box: gr.Column(visible=with_range),
            low: limits[0],
            high: limits[1],
            **redrawn(visit),
        }

    def redrawn(visit: Visit) -> Updates:
        """Return the new picture."""
        image = opened(visit, slot)
        limits = image.limits if with_range or "image" not in visit.images else opened(visit).limits
        with visit.new_folder(f"{slot}-view") as folder:
            path = folder / f"{Path(image.name).stem}.png"
            write_picture(path, image.plane, limits, image.pixel_width_nm)
        return {view: str(path)}

    def use(visit: Visit, path: Path) -> Updates:
        """Open the first series and channel of a file, and hide the results of the image before.

        The image before stays if the file cannot be opened.
        """
        visit.images[slot] = open_image(path, max_pixels=1e6 * page.settings.max_megapixels)
        return shown(visit) | page.hide_results(slot)

    def upload(visit: Visit, path: str | None) -> Updates:
        if path is None:
            raise UserError("no file was uploaded; choose one file")
        with visit.adopt(Path(path), f"{slot}-file") as kept:
            return use(visit, kept)

    def open_example(visit: Visit, name: str) -> Updates:
        return use(visit, page.examples[name])

    def choose(visit: Visit, series_number: int, channel_number: int) -> Updates:
        """Open another series or channel."""
        image = opened(visit, slot)
        if series_number != image.number:
            new: OpenedImage = open_image(
                image.file,
                max_pixels=1e6 * page.settings.max_megapixels,
                series=series_number,
                channel=channel_number or 0,
                known=image.series,
            )
        else:
            channel_index = min(channel_number or 0, len(image.image.array) - 1)
            new = replace(image, channel=channel_index)
            new = replace(new, limits=automatic_limits(new.plane))
        visit.images[slot] = new
        return shown(visit) | page.hide_results(slot)

    def stretch(visit: Visit, black: float, white: float) -> Updates:
        image = opened(visit, slot)
        if white <= black:
            raise UserError(f"white ({white:g}) must be above black ({black:g}); move the sliders apart")
        visit.images[slot] = replace(image, limits=(float(black), float(white)))
        return redrawn(visit)

    def automatic_range(visit: Visit) -> Updates:
        image = opened(visit, slot)
        visit.images[slot] = replace(image, limits=automatic_limits(image.plane))
        return shown(visit)

    outputs = [series, channel, facts, range_box, low, high, view, file]

    def connect() -> None:
        """Connect the events."""
        changed = [*outputs, *page.results[slot]]
        # The list of files is emptied, so that the next file can be dropped at once.
        page.on([file.upload], upload, [file], changed, message, empties=file)
        for name, button in buttons.items():
            page.on([button.click], partial(open_example, name=name), [], changed, message)
        page.on([series.input, channel.input], choose, [series, channel], changed, message)
        if with_range:
            page.on([low.input, high.input], stretch, [low, high], [view], message)
            page.on([automatic.click], automatic_range, [], outputs, message)

    return ImagePanel(message, outputs, open_example, connect)


def _rounded(value: float, plane: np.ndarray) -> float:
    return round(value) if plane.dtype.kind in "iu" else value
