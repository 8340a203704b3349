"""Answers on their way to a client: whole, or piece by piece as server-sent events.

What goes wrong before the first piece becomes a status; later it becomes an event with the error, and the stream ends
without [DONE]. A client that leaves has its request cancelled, wherever it was.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mobile_llm.errors import MobileLlmError
from mobile_llm.generation.answer import Answer
from mobile_llm.generation.stream import Stream
from mobile_llm.serving.connection import while_connected
from mobile_llm.serving.desk import Job
from mobile_llm.serving.errors import document
from mobile_llm.serving.schemas import Writing
from mobile_llm.serving.server import Server

Json = dict[str, Any]
_FINISH = {"stop": "stop", "length": "length", "context": "length"}
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}


class Shape(Protocol):
    """How one API writes an answer: as one choice, or as the choices of events that come after each other."""

    prefix: str  # of ids
    kind: str
    chunk_kind: str

    def whole(self, answer: Answer) -> Json: ...

    def opening(self) -> list[Json]: ...

    def piece(self, text: str) -> list[Json]: ...

    def ending(self, answer: Answer) -> list[Json]: ...


class AnswerLast:
    """The pieces of a stream, and its answer after them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[str | Answer]:
        yield from self._stream
        yield self._stream.answer

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Reply:
    """An ASGI application for one request: `begin` starts its answer, in the model's thread."""

    server: Server
    writing: Writing
    shape: Shape
    begin: Callable[[], Stream]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Busy, ClientGone, and what the answer raises before its first piece."""
        job = self.server.desk.submit(lambda: AnswerLast(self.begin()))
        try:
            if self.writing.stream:
                await while_connected(receive, self._send_events(job, send))
            else:
                document = await while_connected(receive, self._whole(job))
                await JSONResponse(document)(scope, receive, send)
        finally:
            job.cancel()

    async def _whole(self, job: Job[str | Answer]) -> Json:
        async for item in job.items():
            if isinstance(item, Answer):
                answer = self._counted(item, job)
        return self._document(self.shape.kind, [self.shape.whole(answer)]) | {"usage": usage(answer)}

    async def _send_events(self, job: Job[str | Answer], send: Send) -> None:
        started = False
        try:
            async for event in self._events(job):
                if not started:
                    await send(_START)
                    started = True
                await send(_body(event))
        except MobileLlmError as error:
            if not started:
                raise
            await send(_body(_event(document(error))))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, job: Job[str | Answer]) -> AsyncIterator[str]:
        opened = False
        async for item in job.items():
            if not opened:
                opened = True
                for choice in self.shape.opening():
                    yield self._chunk([choice])
            if isinstance(item, Answer):
                answer = self._counted(item, job)
            choices = self.shape.ending(item) if isinstance(item, Answer) else self.shape.piece(item)
            for choice in choices:
                yield self._chunk([choice])
        if self.writing.usage:
            yield self._chunk([], usage=usage(answer))
        yield "data: [DONE]\n\n"

    def _chunk(self, choices: list[Json], **more: Json) -> str:
        return _event(self._document(self.shape.chunk_kind, choices) | more)

    def _document(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"{self.shape.prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.server.id,
            "system_fingerprint": self.server.fingerprint,
            "choices": choices,
        }

    def _counted(self, answer: Answer, job: Job[str | Answer]) -> Answer:
        self.server.metrics.wrote(answer.stats, job.waited)
        return answer


def finish_reason(answer: Answer) -> str:
    """As OpenAI names it."""
    return "tool_calls" if answer.tool_calls else _FINISH[answer.finish]


def usage(answer: Answer) -> Json:
    """How many tokens were read, had been read before, and were written."""
    prompt, written = answer.prompt_tokens, len(answer.tokens)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": answer.stats.cached_tokens},
    }


def _event(document: Json) -> str:
    """In ASCII: some clients take U+2028 for the end of a line."""
    return f"data: {json.dumps(document, separators=(',', ':'))}\n\n"


def _body(text: str) -> Json:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}
