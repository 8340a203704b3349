"""A model behind a real socket, in this process: its server runs in a thread."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from mobile_llm.serving.app import make_app
from mobile_llm.serving.listening import StoppableServer, listen
from mobile_llm.serving.settings import Settings

Answered = tuple[int, Mapping[str, str], Any]
CHAT = "/v1/chat/completions"


class Served:
    """The address of a server, and requests to it without a client library."""

    def __init__(self, app: Any, port: int) -> None:
        self.app = app
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answered:
        """Status, headers and the JSON (or text) of one request; a body of bytes goes as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, given)
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.headers.get("content-type", "")
            return response.status, response.headers, json.loads(text) if kind == "application/json" else text
        finally:
            connection.close()

    def say(self, text: str, **more: Any) -> Answered:
        """One message of the user to the chat."""
        return self.ask(CHAT, {"messages": [{"role": "user", "content": text}], **more})

    def metric(self, name: str) -> float:
        """A figure of /metrics, by its name and labels."""
        lines = self.ask("/metrics")[2].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Until something that another thread does has come about."""
        end = time.monotonic() + 10
        while not reached():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.005)


@contextmanager
def serving(model: Any, settings: Settings | None = None) -> Iterator[Served]:
    """Serves a model on a free port; `settings` say the rest."""
    settings = settings or Settings(port=0)
    with listen(settings) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # a slow reader is felt at once
        app = make_app(model, settings)
        server = StoppableServer(app)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Served(app, listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def open_request(port: int, body: Any, buffer: int | None = None) -> socket.socket:
    """Ask the chat, and read nothing of the answer; of a small `buffer` it soon stands still."""
    data = json.dumps(body).encode()
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", port))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection
