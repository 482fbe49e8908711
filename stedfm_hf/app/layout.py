"""Layout of the page: the image on the left, the tabs on the right."""

from __future__ import annotations

import html
from collections.abc import Callable

import gradio as gr

from stedfm_hf.app.image_panel import add_image_panel
from stedfm_hf.app.page import Page, Updates
from stedfm_hf.app.tabs import TABS
from stedfm_hf.app.visits import Visit

TITLE = "STED-FM"


def build_page(page: Page) -> gr.Blocks:
    """Build the page; it opens with the first example image.

    Args:
        page: Settings, visits, models and examples.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>A foundation model for STED microscopy: drop an image and try it in your browser.</p>"
            f'<p class="facts">Model: {html.escape(page.models.encoder.name)}. Your files stay on this server and are '
            "deleted when you close the page.</p>",
            elem_classes="title",
            container=False,
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                first = add_image_panel(page, "image", with_range=True)
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                for title, add_tab in TABS.items():
                    page.tab = title
                    with gr.Tab(title) as tab:
                        add_tab(page)
                    tab.select(_noting(page, title), api_visibility="private", show_progress="hidden", queue=False)
        for panel in (first, *page.panels):
            panel.connect()

        def begin(visit: Visit) -> Updates:
            page.models.prepare_index(page.visits.is_closing)
            visit.tab = next(iter(TABS))
            return first.open_example(visit, next(iter(page.examples)))

        def leave(request: gr.Request) -> None:
            page.visits.end(str(request.session_hash))

        page.on([blocks.load], begin, [], [*first.outputs, *page.results["image"]], first.message)
        blocks.unload(leave)
    return blocks


def _noting(page: Page, title: str) -> Callable[[gr.Request], None]:
    """Return the function that notes that a visitor has opened a tab."""

    def note(request: gr.Request) -> None:
        page.visits.of(str(request.session_hash)).tab = title

    return note
