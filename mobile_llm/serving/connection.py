"""Both ends of a request's connection: its body as JSON, within limits, and whether its client is still there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from mobile_llm.errors import InvalidInput
from mobile_llm.serving.errors import ClientGone, Refused

_BODY_SECONDS = 30
_DROPPED = 64_000_000
T = TypeVar("T")


async def read_json(request: Request, limit: int) -> Any:
    """Raises Refused for a body over `limit` bytes, one that takes too long, or is not said to be JSON, which a page
    of another site cannot say; InvalidInput for what is no JSON; ClientGone."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the body is JSON; say so with the header Content-Type: application/json")
    try:
        body = await asyncio.wait_for(_body(request, limit), _BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Refused(408, f"the body took more than {_BODY_SECONDS} seconds to arrive; send it at once") from None
    except ClientDisconnect:
        raise ClientGone from None
    return _parsed(body)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Raises ClientGone where the client goes first, and cancels it then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))


async def drop_body(receive: Receive) -> None:
    """Read what is left of a body, and keep none of it: a client that is still sending would not see its refusal.
    Up to a limit, in size and in time, after which it need not."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_dropped(receive), _BODY_SECONDS)


async def _dropped(receive: Receive) -> None:
    left = _DROPPED
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refused(
                413, f"the body has more than the {limit:,} bytes that are taken; send less, or raise --body-mb"
            )
    return bytes(body)


def _parsed(body: bytes) -> Any:
    try:
        parsed = json.loads(body, parse_constant=_refuse_constant)
        if b"\\u" in body:  # half a character, written as \ud83d, is no text
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON that can be read: {error}") from None
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
