"""Clients of a server, good and bad, each of which knows what it has to get. The standard library only.

Each gives the status it got; one that was queued out (429) is fine at any time. Raises AssertionError where an answer
is not what it has to be.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CHAT = "/v1/chat/completions"
KEY = "soak"
_TOPICS = ("a dog", "the sea", "Paris", "a bicycle", "winter", "a violin", "the moon", "bread", "a bank", "chess")
_SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Server:
    """Where it listens; `schemas` is whether it can hold answers to one."""

    port: int
    schemas: bool

    def send(self, body: Any, key: str = KEY) -> tuple[int, str]:
        """Status and text of one request to the chat; a body of bytes goes as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request("POST", CHAT, data, _headers(key))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/metrics", headers=_headers(KEY))
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def whole(server: Server, random: random.Random) -> int:
    status, text = server.send(_asking(random))
    assert status != 200 or json.loads(text)["choices"][0]["message"]["content"]
    return status


def streamed(server: Server, random: random.Random) -> int:
    status, text = server.send(_asking(random, stream=True))
    assert status != 200 or text.endswith("data: [DONE]\n\n")
    return status


def by_schema(server: Server, random: random.Random) -> int:
    """A schema that was not there before, now and then."""
    schema = {**_SCHEMA, "properties": {f"age{random.randrange(1000)}": {"type": "integer"}}, "required": []}
    shape = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    status, text = server.send(_asking(random, response_format=shape))
    if status == 200:
        (choice,) = json.loads(text)["choices"]
        assert choice["finish_reason"] == "length" or isinstance(json.loads(choice["message"]["content"]), dict)
    return status


def malformed(server: Server, random: random.Random) -> int:
    return server.send(random.choice([b"", b"{", b"\xff", b"[" * 50_000, b'{"messages": [{"role": "user"}]}']))[0]


def wrong_key(server: Server, random: random.Random) -> int:
    return server.send(_asking(random), key="wrong")[0]


def too_large(server: Server, random: random.Random) -> int:
    return server.send({"messages": [{"role": "user", "content": "z" * 10_000_000}]})[0]


def too_long(server: Server, random: random.Random) -> int:
    return server.send({"messages": [{"role": "user", "content": "a b " * 20_000}], "stream": True})[0]


def leaving(server: Server, random: random.Random) -> int:
    """Goes while its answer is read, written or waited for."""
    with _opened(server, _asking(random, stream=random.random() < 0.5)):
        time.sleep(random.random())
    return 0


def slow(server: Server, random: random.Random) -> int:
    """Reads a few bytes at a time."""
    with _opened(server, _asking(random, stream=True)) as connection:
        received = connection.recv(256)
        while more := connection.recv(2048):
            received += more
            time.sleep(0.02)
    return int(received.split(b" ", 2)[1])


Client = Callable[[Server, random.Random], int]
# What each has to get, and how often it comes
CLIENTS: Mapping[Client, tuple[int, int]] = {
    whole: (200, 4),
    streamed: (200, 4),
    by_schema: (200, 2),
    malformed: (400, 2),
    wrong_key: (401, 2),
    too_large: (413, 1),
    too_long: (400, 1),
    leaving: (0, 3),
    slow: (200, 2),
}


def _asking(random: random.Random, **more: Any) -> dict[str, Any]:
    text = f"Say something about {random.choice(_TOPICS)}, in {random.randrange(2, 40)} words."
    return {"messages": [{"role": "user", "content": text}], "max_tokens": random.randrange(1, 48), **more}


def _headers(key: str) -> dict[str, str]:
    return {"content-type": "application/json", "authorization": f"Bearer {key}"}


def _opened(server: Server, body: Any) -> socket.socket:
    data = json.dumps(body).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(120)
    connection.connect(("127.0.0.1", server.port))
    headers = {**_headers(KEY), "host": "127.0.0.1", "connection": "close", "content-length": str(len(data))}
    lines = [f"POST {CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode() + data)
    return connection
