"""Tab `Groups`: the page of a tree of `stedfm cluster`."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import gradio as gr

from stedfm_hf.app.page import Page, Updates, downloads, listed
from stedfm_hf.app.visits import Visit
from stedfm_hf.discovery.cluster import REPORT
from stedfm_hf.runs import UserError


def add_groups(page: Page) -> None:
    """Add the tab.

    Args:
        page: The page.
    """
    if page.settings.groups is None:
        gr.Markdown(
            "This app has no groups to show. Split the images of a folder into groups, and start the app with the "
            "result:\n\n"
            "```\nstedfm cluster images/ --model demo --output groups\nstedfm app --groups groups\n```"
        )
        return
    groups = Path(page.settings.groups)
    gr.Markdown(f"Walk through the tree of groups of `{groups.name}`. It does not depend on your image.")
    button = gr.Button("Show the tree", variant="primary", size="md")
    message = page.message()
    with page.result() as result:
        frame = gr.HTML(container=False, elem_id="groups")
        files = downloads()

    def show(visit: Visit) -> Updates:
        """Show the page, and copy it for the download.

        Raises:
            UserError: If the page was removed since the app started.
        """
        with visit.new_folder("groups") as folder:
            copy = folder / f"{groups.name}.html"
            try:
                shutil.copyfile(groups / REPORT, copy)
            except OSError as error:
                raise UserError(f"{groups.name}: the page of the groups is not there any more") from error
            text = copy.read_text(encoding="utf-8")
        return {frame: framed(text, f"Tree of the groups of {groups.name}"), files: listed(copy)}

    page.on([button.click], show, [], [frame, files], message, shows=result)


def framed(text: str, title: str) -> str:
    """Return a page as a frame, whose scripts cannot reach the app.

    Gradio serves HTML files as downloads only, so the frame contains the page.

    Args:
        text: HTML of the page.
        title: Title of the frame, for readers who cannot see it.
    """
    return (
        f'<iframe title="{html.escape(title)}" sandbox="allow-scripts" srcdoc="{html.escape(text)}" '
        'class="groups"></iframe>'
    )
