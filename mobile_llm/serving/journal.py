"""Each request's id, its line in the log, its place in the metrics; and the last resort for what nobody expected."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mobile_llm.serving.connection import drop_body
from mobile_llm.serving.errors import ClientGone, response
from mobile_llm.serving.metrics import Metrics

log = logging.getLogger("mobile_llm.serving")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # others' ids go into the log, so they are of harmless characters
_GONE = 499  # as nginx has it: the client did not wait for its response


class Journal:
    """An ASGI middleware, the outermost. Nothing of what is asked or answered goes into the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: tuple[str, ...]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = _Entry(receive, send, _request_id(Headers(scope=scope)))
        started = time.perf_counter()
        status = await self._status(entry, scope)
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.responded(route, status)
        seconds = time.perf_counter() - started
        log.info("%s %s %s %d %.3f s", entry.id, scope["method"], route, status, seconds)

    async def _status(self, entry: _Entry, scope: Scope) -> int:
        """Serve it, and say how it ended."""
        try:
            await self._app(scope, entry.receive, entry.send)
        except ClientGone:
            return _GONE
        except Exception as error:
            log.exception("%s failed", entry.id)
            if entry.status is not None:  # too late for another one; the server closes the connection
                raise
            await response(error)(scope, entry.receive, entry.send)
        return entry.status or _GONE


class _Entry:
    """One request's id and, once it has one, its status. What is refused has its body read first."""

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self.id = request_id
        self.status: int | None = None
        self._receive = receive
        self._send = send
        self._whole = False  # whether its body has been read

    async def receive(self) -> Message:
        message = await self._receive()
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = status = message["status"]
            if status >= 400 and not self._whole:
                await drop_body(self._receive)
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self._send(message)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
