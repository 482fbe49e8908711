"""`stedfm app`: build the page, and serve it until it is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stedfm_hf.app.model_sources import find_models
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.stop_signals import stop_signals

if TYPE_CHECKING:
    import gradio as gr


OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "GRADIO_SSR_MODE": "False"}
"""Environment variables that keep Gradio from making requests to other hosts."""


@dataclass(frozen=True)
class AppResult(Result):
    """Result of `stedfm app`.

    Attributes:
        address: Address that the app was served at.
    """

    address: str

    def summary(self) -> str:
        """Return one line."""
        return "stopped; all files of visitors are deleted"

    def to_json(self) -> dict[str, str]:
        """Return the address."""
        return {"address": self.address}


@takes_settings(AppSettings)
def launch_app(settings: AppSettings) -> AppResult:
    """Serve the app until Ctrl-C or SIGTERM, and delete all files of visitors at the end.

    Returns:
        The address.

    Raises:
        UserError: If Gradio is not installed, a model or the index does not fit, or the port is not free.
    """
    _require_gradio()
    blocks, close = assemble(settings)
    with stop_signals() as stopped:
        try:
            _, address, _ = blocks.launch(prevent_thread_lock=True, **launch_options(settings))
            print_note(f"the app is at {address} (stop it with Ctrl-C)")
            stopped.wait()
        except OSError as error:
            raise UserError(
                f"port {settings.port} at {settings.host} is not available; choose another with --port"
            ) from error
        finally:
            blocks.close(verbose=False)
            close()
    return AppResult(address)


def build_app(settings: AppSettings | None = None) -> gr.Blocks:
    """Build the app, for `launch(**launch_options(settings))`.

    The files of visitors are in one temporary directory, which is deleted when the process ends.

    Args:
        settings: Settings; None for the defaults.

    Returns:
        The app.

    Raises:
        UserError: If Gradio is not installed, or a model or the index does not fit.
    """
    _require_gradio()
    return assemble(settings or AppSettings())[0]


def assemble(settings: AppSettings) -> tuple[gr.Blocks, Callable[[], None]]:
    """Load the models, simulate the examples and build the page.

    Args:
        settings: Settings of the app.

    Returns:
        The app, and a function that deletes all its files.

    Raises:
        UserError: If a model or the index does not fit.
    """
    sources = find_models(settings)
    os.environ.update(OFFLINE)

    # Errors up to here are reported at once: these modules import Gradio and torch, which takes seconds.
    from stedfm_hf.app.examples import write_examples
    from stedfm_hf.app.layout import build_page
    from stedfm_hf.app.models import load_models
    from stedfm_hf.app.page import Page
    from stedfm_hf.app.visits import Visits

    visits = Visits(60 * settings.visit_minutes)
    os.environ["GRADIO_TEMP_DIR"] = str(visits.folder)
    work = visits.folder / "app-files"
    work.mkdir()
    try:
        models = load_models(settings, sources, work)
        blocks = build_page(Page(settings, visits, models, write_examples(work)))
    except BaseException:
        visits.close()
        raise
    blocks.queue(max_size=settings.max_waiting, api_open=False)
    visits.start_sweeping()

    def close() -> None:
        visits.is_closing.set()
        models.wait()  # the thread of the index would write again into the deleted folder
        visits.close()

    return blocks, close


def launch_options(settings: AppSettings) -> dict[str, Any]:
    """Return the arguments of `launch`: address, limits and look; nothing is shared or reported to other hosts.

    Args:
        settings: Settings of the app.
    """
    from stedfm_hf.app.theme import CSS, make_theme

    return {
        "server_name": settings.host,
        "server_port": settings.port or _free_port(settings.host),
        "max_file_size": int(1e6 * settings.max_file_mb),
        "theme": make_theme(),
        "css": CSS,
        "footer_links": [],
        "share": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "quiet": True,
        "show_error": False,
    }


def _free_port(host: str) -> int:
    import socket

    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _require_gradio() -> None:
    if find_spec("gradio") is None:
        raise UserError('the app needs Gradio, which is not installed; pip install "stedfm-hf[app]"')
