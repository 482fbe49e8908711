"""The app of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from stedfm_hf.acquisition.serving.description import describe_answers
from stedfm_hf.acquisition.serving.engine import Engine
from stedfm_hf.acquisition.serving.errors import add_error_handlers
from stedfm_hf.acquisition.serving.gate import Admission, Gate
from stedfm_hf.acquisition.serving.images import ImageReader
from stedfm_hf.acquisition.serving.metrics import Metrics
from stedfm_hf.acquisition.serving.routes import router
from stedfm_hf.acquisition.serving.server import Server
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.serving.store import Store
from stedfm_hf.acquisition.serving.tokens import Tokens
from stedfm_hf.acquisition.serving.work import Work
from stedfm_hf.weights.models import ModelSource

ABOUT = (
    "Finders of structures, score maps, and the regions of a field to image next. Requests need the header "
    "`Authorization: Bearer TOKEN`, except for `GET /health` and this description. On a server without tokens, "
    "`POST /clients` gives one; on others, ask the operator."
)


class _App(FastAPI):
    """App whose OpenAPI description also describes the fields of answers."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        if self.openapi_schema is None:
            self.openapi_schema = describe_answers(super().openapi())
        return self.openapi_schema


def make_app(settings: ServeSettings, model: ModelSource | None = None) -> FastAPI:
    """Load the model and the finders, and make the app of a server.

    Args:
        settings: Settings of the server.
        model: Model that was found; None finds that of the settings.

    Raises:
        UserError: If a token is wrong or missing, the model is not available, or the state cannot be written.
    """
    tokens = Tokens.load(settings)
    store = Store(Path(settings.state))
    share = None if settings.share is None else Path(settings.share)
    server = Server(
        settings,
        tokens,
        Engine.load(settings, model),
        store,
        Work(settings.max_seconds),
        ImageReader(int(1e6 * settings.max_mb), 1e6 * settings.max_megapixels, share),
        Admission(1 + settings.max_waiting, settings.max_per_client),
        Metrics(),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        server.work.close()

    app = _App(
        title="stedfm serve",
        description=ABOUT,
        version=metadata.version("stedfm-hf"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = server
    add_error_handlers(app)
    app.include_router(router)
    app.add_middleware(
        Gate,
        settings=settings,
        tokens=tokens,
        knows=store.knows,
        admission=server.admission,
        metrics=server.metrics,
    )
    return app
