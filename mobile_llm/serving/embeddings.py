"""POST /v1/embeddings: a vector for each text, one text at a time."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mobile_llm.errors import Cancelled
from mobile_llm.serving.connection import read_json, while_connected
from mobile_llm.serving.desk import Job
from mobile_llm.serving.schemas import EmbeddingBody, read_embedding
from mobile_llm.serving.server import Server
from mobile_llm.tasks.feature_extraction import Embedder

Row = tuple[np.ndarray, int]  # float32 (hidden,), and how many tokens were read


async def embeddings(request: Request) -> Embeddings:
    server: Server = request.app.state.server
    body = read_embedding(await read_json(request, server.settings.body_limit))
    server.check_model(body.model)
    return Embeddings(server, body)


class Embeddings:
    """An ASGI application for one request."""

    def __init__(self, server: Server, body: EmbeddingBody) -> None:
        self._server = server
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Busy, ClientGone, and what the model raises."""
        job = self._server.desk.submit(lambda: Rows(self._server.model, self._body))
        try:
            rows = await while_connected(receive, _collected(job))
        finally:
            job.cancel()
        self._server.metrics.embedded(sum(tokens for _, tokens in rows), job.waited)
        await JSONResponse(self._document(rows))(scope, receive, send)

    def _document(self, rows: list[Row]) -> dict[str, object]:
        written = _base64 if self._body.base64 else _numbers
        tokens = sum(tokens for _, tokens in rows)
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": written(v)} for i, (v, _) in enumerate(rows)],
            "model": self._server.id,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


class Rows:
    """Vectors as they are computed, in the order of the texts."""

    def __init__(self, model: Embedder, body: EmbeddingBody) -> None:
        self._model = model
        self._body = body
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Row]:
        """Raises Cancelled once it was closed."""
        for text in self._body.texts:
            if self._closed.is_set():
                raise Cancelled("these embeddings were cancelled")
            vector = self._model.embed(text, self._body.prompt_name)[0]
            yield vector, self._model.count_tokens(text, self._body.prompt_name)

    def close(self) -> None:
        self._closed.set()


async def _collected(job: Job[Row]) -> list[Row]:
    return [row async for row in job.items()]


def _numbers(vector: np.ndarray) -> list[float]:
    return [float(value) for value in vector]


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
