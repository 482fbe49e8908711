"""`stedfm study serve`: check the study and its images, and serve the pages until the command is stopped."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stedfm_hf.runs import UserError, counted, print_note
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.stop_signals import stop_signals
from stedfm_hf.studies.settings import StudyServeSettings
from stedfm_hf.studies.study import read_study


@dataclass(frozen=True)
class StudyServeResult(Result):
    """Result of `study serve`.

    Attributes:
        address: Address of the server.
        file: File of the answers.
        answers: Number of stored answers, without those that were undone.
        participants: Number of participants who answered.
    """

    address: str
    file: Path
    answers: int
    participants: int

    def summary(self) -> str:
        """Return one line."""
        size = f"{counted(self.answers, 'answer')} of {counted(self.participants, 'participant')}"
        return f"stopped; {self.file} holds {size}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return {
            "address": self.address,
            "file": str(self.file),
            "answers": self.answers,
            "participants": self.participants,
        }


@takes_settings(StudyServeSettings)
def serve_study(settings: StudyServeSettings) -> StudyServeResult:
    """Serve a study until Ctrl-C or SIGTERM.

    Returns:
        Number of stored answers.

    Raises:
        UserError: If the study file is not valid, images are missing, FastAPI is not installed, the file of answers
            belongs to another study or to another running server, or the port is not free.

    Example:
        >>> serve_study("study.yaml", answers="answers.sqlite")  # doctest: +SKIP
    """
    study = read_study(settings.study)
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise UserError(f'study serve needs {" and ".join(missing)}; pip install "stedfm-hf[serve]"')

    from stedfm_hf.studies.serving.application import create_app
    from stedfm_hf.studies.serving.context import Context
    from stedfm_hf.studies.serving.images import prepare_images
    from stedfm_hf.studies.serving.running import only_server
    from stedfm_hf.studies.serving.store import create_store

    with tempfile.TemporaryDirectory(prefix="stedfm-study-") as folder, _listen(settings) as listening:
        address = settings.address or _address_of(listening)
        source = Path(settings.study).parent if settings.images is None else settings.images
        files, hashes = prepare_images(study, source, Path(folder))
        with only_server(settings.answers):
            store = create_store(settings.answers, study, hashes, address)
            context = Context(study, store, files, address, settings.open, settings.max_participants)
            with stop_signals() as stopped, run_server(create_app(context), listening) as thread:
                print_note(f"for you: {context.organiser_link}")
                if context.open_link is not None:
                    print_note(f"for participants: {context.open_link}")
                print_note("stop with Ctrl-C")
                while thread.is_alive() and not stopped.wait(0.5):
                    pass
    with store.reading() as transaction:
        kept = [each.participant for each in transaction.history() if not each.undone]
    return StudyServeResult(address, Path(settings.answers), len(kept), len(set(kept)))


@contextmanager
def run_server(app: Any, listening: socket.socket) -> Iterator[threading.Thread]:
    """Serve an application in a thread, until the block ends.

    Args:
        app: ASGI application.
        listening: Socket that accepts connections.

    Yields:
        The thread.
    """
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would hold the private links
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join()


def _listen(settings: StudyServeSettings) -> socket.socket:
    """Return a socket that listens at the address of the settings."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as error:
        raise UserError(
            f"port {settings.port} at {settings.host} is not available ({error.strerror}); choose another with --port"
        ) from error


def _address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
