"""A page without a server, whose functions the tests call as its events would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from stedfm_hf.app.examples import write_examples
from stedfm_hf.app.layout import build_page
from stedfm_hf.app.model_sources import find_models
from stedfm_hf.app.models import load_models
from stedfm_hf.app.page import Page, Updates
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.app.viewing import open_image
from stedfm_hf.app.visits import Visit, Visits


class RecordedPage(Page):
    """Page that records the function of every button, by the text of the button."""

    def on(self, events: Sequence[Any], run: Callable[..., Updates], *args: Any, **kwargs: Any) -> Any:
        for event in events:
            block = getattr(event, "__self__", None)
            if isinstance(block, gr.Button):
                self.buttons.setdefault(str(block.value), run)
        return super().on(events, run, *args, **kwargs)

    @property
    def buttons(self) -> dict[str, Callable[..., Updates]]:
        """Functions of the buttons; the first of those with the same text."""
        return self.__dict__.setdefault("_buttons", {})

    def press(self, button: str, visit: Visit, *values: Any) -> dict[str, Any]:
        """Call the function of a button; the new values have the labels of their components, or their ids."""
        updates = self.buttons[button](visit, *values)
        return {getattr(each, "elem_id", None) or getattr(each, "label", None) or "": v for each, v in updates.items()}

    def open(self, file: Path, **choice: Any) -> Visit:
        """Begin a visit that has opened a file."""
        visit = self.visits.of(file.name)
        with visit.adopt(file, "image-file") as kept:
            visit.images["image"] = open_image(kept, max_pixels=1e6 * self.settings.max_megapixels, **choice)
        return visit


def make_page(folder: Path, **changes: Any) -> RecordedPage:
    """Build the page of some settings.

    Args:
        folder: Folder for the example images and the index.
        changes: Settings.
    """
    settings = AppSettings(**{"device": "cpu", **changes})
    models = load_models(settings, find_models(settings), folder)
    page = RecordedPage(settings, Visits(60.0), models, write_examples(folder / "examples"))
    build_page(page)
    return page
