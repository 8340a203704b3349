"""The socket of a server, and uvicorn on it."""

from __future__ import annotations

import logging
import socket

import uvicorn
from starlette.applications import Starlette

from mobile_llm.errors import InvalidSpec
from mobile_llm.serving.journal import log
from mobile_llm.serving.settings import Settings

_CONNECTIONS = 256  # more are refused with status 503
_LAST_SECONDS = 5  # for responses under way when the server is stopped


def listen(settings: Settings) -> socket.socket:
    """Bind, before a model is loaded for nothing. Raises InvalidSpec for an address that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise InvalidSpec(
            f"{settings.host}, port {settings.port}, cannot be listened on ({error.strerror}); choose another --port, "
            "or 0 for any that is free"
        ) from None


class StoppableServer(uvicorn.Server):
    """Cancels what is being answered before it waits for responses to end."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        self._cancel = app.state.server.desk.cancel

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._cancel()
        await super().shutdown(sockets)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM. One line a request goes to the log."""
    log.setLevel(logging.INFO)
    StoppableServer(app).run([listening])
