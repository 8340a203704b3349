"""The ASGI application of a loaded model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mobile_llm.errors import MobileLlmError, WrongTask
from mobile_llm.serving.chat_completions import chat_completions
from mobile_llm.serving.completions import completions
from mobile_llm.serving.desk import Desk
from mobile_llm.serving.embeddings import embeddings
from mobile_llm.serving.errors import Refused, handle
from mobile_llm.serving.guard import Guard
from mobile_llm.serving.journal import Journal
from mobile_llm.serving.metrics import CONTENT_TYPE
from mobile_llm.serving.models import model, models
from mobile_llm.serving.server import Server
from mobile_llm.serving.settings import Settings

# What is asked of a model of each task
_ROUTES: Mapping[str, tuple[Route, ...]] = {
    "text-generation": (
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
    ),
    "feature-extraction": (Route("/v1/embeddings", embeddings, methods=["POST"]),),
}


def make_app(loaded: Any, settings: Settings) -> Starlette:
    """Serves a ChatModel or an Embedder, which stays the caller's to close. Raises WrongTask for another model."""
    task = loaded.engine.manifest.task.name
    if task not in _ROUTES:
        raise WrongTask(f"this bundle does {task}; served are {' and '.join(_ROUTES)}; use `mobile-llm run`")
    routes = [
        *_ROUTES[task],
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", model),
        Route("/metrics", metrics),
    ]
    server = Server(loaded, settings, Desk(settings.queue))
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Journal, server.metrics, tuple(route.path for route in routes)),
            Middleware(Guard, settings),
        ],
        exception_handlers={MobileLlmError: handle, Refused: handle, HTTPException: handle},
        lifespan=_lifespan,
    )
    app.state.server = server
    return app


async def metrics(request: Request) -> Response:
    server: Server = request.app.state.server
    return Response(server.metrics.text(server.desk.waiting), media_type=CONTENT_TYPE)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    app.state.server.desk.close()
