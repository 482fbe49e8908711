"""Parts that the tabs of the page share: the visitor's image, events with messages, downloads."""

from __future__ import annotations

import html
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from stedfm_hf.app.models import Models
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.app.viewing import OpenedImage
from stedfm_hf.app.visits import Visit, Visits, without_paths
from stedfm_hf.inference.limits import time_limit
from stedfm_hf.inference.one_image import Patches
from stedfm_hf.inference.plane_files import new_planes
from stedfm_hf.runs import UserError

Updates = dict[Any, Any]


@dataclass(eq=False)
class Page:
    """The page under construction.

    Attributes:
        settings: Settings of the app.
        visits: Visits.
        models: Models.
        examples: Files of the example images by name.
        view: Picture of the visitor's image; set when it is added.
        tab: Title of the tab that is being added.
        panels: Parts of tabs that open images, whose events are connected last.
        results: Parts of the page that are hidden when the visitor opens another image, by the slot of that image.
    """

    settings: AppSettings
    visits: Visits
    models: Models
    examples: dict[str, Path]
    view: Any = None
    tab: str | None = None
    panels: list[Any] = field(default_factory=list)
    results: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def message(self) -> Any:
        """Add a place for a message, which is hidden while it is empty."""
        return gr.HTML(visible=False, elem_classes="message", container=False)

    def result(self, *slots: str) -> Any:
        """Add a part of the page for a result, hidden until there is one.

        Args:
            slots: Names of the images that the result depends on.
        """
        column = gr.Column(visible=False)
        for slot in slots:
            self.results[slot].append(column)
        return column

    def hide_results(self, slot: str) -> Updates:
        """Return the updates that hide the results of an earlier image."""
        return {each: gr.Column(visible=False) for each in self.results[slot]}

    def on(
        self,
        events: Sequence[Any],
        run: Callable[..., Updates],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        message: Any,
        *,
        computes: bool = False,
        shows: Any = None,
        empties: Any = None,
        in_open_tab: bool = False,
    ) -> Any:
        """Call a function at events of the page; an error becomes one sentence in the message.

        Args:
            events: Events, such as `button.click`.
            run: Function of the visit and the values of the inputs; returns new values of outputs. At an event
                `select`, the position follows the visit.
            inputs: Components whose values are passed to the function.
            outputs: Components that the function may change.
            message: Component for the message.
            computes: Whether a model runs: such calls wait for each other, and their time is limited.
            shows: Part of the page with the result, which is hidden by an error.
            empties: Component whose value is removed in any case.
            in_open_tab: Whether the function is called only while the tab that is being added is open; for events of
                components outside of it.
        """
        tab = self.tab

        def handle(request: gr.Request, *values: Any) -> Updates:
            visit = self.visits.of(str(request.session_hash))
            if in_open_tab and visit.tab not in (None, tab):
                return dict(gr.skip())
            emptied = {} if empties is None else {empties: None}
            hidden = emptied if shows is None else emptied | {shows: gr.Column(visible=False)}
            try:
                with time_limit(self.settings.max_seconds, lambda: visit.has_left):
                    updates = run(visit, *values)
            except Exception as error:  # noqa: BLE001 -- a visitor must never see a traceback
                return hidden | {message: gr.HTML(self.explain(error), visible=True)}
            shown = emptied if shows is None else emptied | {shows: gr.Column(visible=True)}
            return {message: gr.HTML("", visible=False)} | shown | updates

        def handle_select(event: gr.SelectData, request: gr.Request, *values: Any) -> Updates:
            return handle(request, event.index, *values)

        selects = any(getattr(event, "event_name", "") == "select" for event in events)
        limits: dict[str, Any] = {"concurrency_limit": 8}
        if computes:
            limits = {"concurrency_id": "compute", "concurrency_limit": self.settings.max_parallel}
        return gr.on(
            list(events),
            handle_select if selects else handle,
            inputs=list(inputs),
            outputs=[message, *([] if shows is None else [shows]), *outputs],
            api_visibility="private",
            show_progress="minimal" if computes else "hidden",
            trigger_mode="once" if computes else "always_last",
            **limits,
        )

    def explain(self, error: Exception) -> str:
        """Return the message of an error as HTML: one sentence, without paths of the server.

        Errors that a visitor cannot fix are printed on the terminal of the server.
        """
        text = " ".join(str(error).split())
        if not isinstance(error, ValueError | MemoryError) or not text:
            traceback.print_exception(error, file=sys.stderr)
            text = "an unexpected error, which the log of the server describes; try another image"
        return f'<p role="alert">{html.escape(without_paths(self.visits.folder)(text))}</p>'


def opened(visit: Visit, slot: str = "image") -> OpenedImage:
    """Return the image that a visitor has opened.

    Args:
        visit: Visit.
        slot: Name of the image.

    Raises:
        UserError: If there is none.
    """
    image = visit.images.get(slot)
    if image is None:
        raise UserError(
            "drop an image first, or choose an example" if slot == "image" else "drop the second image first"
        )
    assert isinstance(image, OpenedImage)
    return image


def position_in(image: OpenedImage, row: float | None, column: float | None) -> tuple[int, int]:
    """Return a position in an image as whole pixels.

    Args:
        image: Image.
        row: Row in pixels; None is 0.
        column: Column in pixels; None is 0.

    Raises:
        UserError: If it is outside of the image.
    """
    height, width = image.plane.shape
    y, x = int(row or 0), int(column or 0)
    if not (0 <= y < height and 0 <= x < width):
        raise UserError(f"row {y}, column {x} is outside of the image of {height} × {width} pixels; choose another")
    return y, x


def picture(title: str, alt_text: str, **settings: Any) -> Any:
    """Add a picture that is only shown, below its title.

    Args:
        title: Title of the picture.
        alt_text: Description for readers who cannot see it.
        settings: Other arguments of `gr.Image`.
    """
    with gr.Column(min_width=220, elem_classes="picture"):
        gr.HTML(f'<p class="picture-title">{html.escape(title)}</p>', container=False)
        return gr.Image(
            label=title,
            show_label=False,
            alt_text=alt_text,
            type="filepath",
            format="png",
            interactive=False,
            buttons=["fullscreen"],
            **settings,
        )


def downloads() -> Any:
    """Add a list of files to download."""
    return gr.File(label="Downloads", file_count="multiple", interactive=False)


def listed(*files: Path) -> list[str]:
    """Return the files that exist, for `downloads`."""
    return [str(file) for file in files if file.is_file()]


def write_map(path: Path, values: np.ndarray, image: OpenedImage, patches: Patches, about: Mapping[str, Any]) -> None:
    """Write values of the patches of an image as a float32 TIFF for ImageJ, one pixel per patch.

    Args:
        path: File to write.
        values: (rows, cols).
        image: Image, whose pixel size is written into the file.
        patches: Patches of the image.
        about: Other metadata.
    """
    size = image.image.pixel_size_nm
    with new_planes(
        path,
        (1, values.shape[0], values.shape[1]),
        np.float32,
        names=["cosine similarity"],
        limits=(-1, 1),
        pixel_size_nm=None if size is None else (size[0] * patches.size_px[0], size[1] * patches.size_px[1]),
        about={"path": image.name, **about},
    ) as planes:
        planes.write(0, values[None])


def cells(text: str) -> str:
    """Return a line of facts as HTML, escaped."""
    return f'<p class="facts">{html.escape(text)}</p>'
