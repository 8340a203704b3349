"""Errors as OpenAI's clients read them: a status, and JSON with a message, a type, the field at fault and a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from mobile_llm import errors
from mobile_llm.errors import InvalidInput, MobileLlmError


class ClientGone(Exception):
    """Whoever asked has closed the connection; nobody reads an answer."""


class BadField(InvalidInput):
    """A field of a request's body that is wrong or not supported."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Refused(Exception):
    """A request that is refused for what HTTP is about: its size, its key, its path."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class _Kind:
    status: int
    type: str = "invalid_request_error"
    code: str | None = None


_BUSY = _Kind(429, "rate_limit_error", "rate_limit_exceeded")
_KINDS: Mapping[type[Exception], _Kind] = {
    errors.ContextFull: _Kind(400, code="context_length_exceeded"),
    errors.Busy: _BUSY,
    errors.NotEnoughMemory: _Kind(503, "server_error"),
    errors.Cancelled: _Kind(503, "server_error"),  # the server is being stopped
    MobileLlmError: _Kind(400),
}
_UNEXPECTED = _Kind(500, "server_error")
_RETRY_SECONDS = "2"


def document(error: Exception) -> dict[str, object]:
    """The JSON of an error. Of one that is none of ours only that it happened."""
    kind = _kind(error)
    message = "the server failed on this request; its log says why, under this request's id"
    if kind is not _UNEXPECTED:
        message = str(error)
    param = error.name if isinstance(error, BadField) else None
    return {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}


def response(error: Exception) -> JSONResponse:
    kind = _kind(error)
    headers = {"retry-after": _RETRY_SECONDS} if kind is _BUSY else None
    return JSONResponse(document(error), kind.status, headers)


async def handle(request: Request, error: Exception) -> JSONResponse:
    """Starlette's way to `response`."""
    if isinstance(error, HTTPException):
        served = ", ".join(route.path for route in request.app.routes)
        error = Refused(error.status_code, f"{request.method} of this path is not served; served are {served}")
    return response(error)


def _kind(error: Exception) -> _Kind:
    if isinstance(error, Refused):
        return _Kind(error.status, code=error.code)
    return next((kind for known, kind in _KINDS.items() if isinstance(error, known)), _UNEXPECTED)
