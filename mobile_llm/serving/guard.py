"""Who may ask: nobody under another machine's name, nobody without the key where there is one."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mobile_llm.serving.errors import Refused, response
from mobile_llm.serving.settings import Settings


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (self._app if refusal is None else response(refusal))(scope, receive, send)

    def _refusal(self, headers: Headers) -> Refused | None:
        host = headers.get("host", "")
        if self._settings.loopback and not self._settings.is_own_name(host):
            return Refused(403, "this server answers to localhost, 127.0.0.1 and [::1] only, not to other names")
        if self._settings.api_key is not None and not _same(headers.get("authorization", ""), self._settings.api_key):
            return Refused(
                401, "the API key is missing or wrong; send it as Authorization: Bearer KEY", "invalid_api_key"
            )
        return None


def _same(given: str, key: str) -> bool:
    """Takes as long for any two texts of one length, so that the time tells nothing of the key."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {key}".encode())
