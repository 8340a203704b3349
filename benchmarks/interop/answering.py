"""How every client in Python answers. Lies beside the clients, whose environments know nothing of this project."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]
Reading = dict[str, Any]


def answer(client: str, read: Callable[[Request, str], list[Reading]]) -> None:
    """`read(request, artifact)` for each artifact that standard input asks about; one line of JSON on standard
    output."""
    request = json.load(sys.stdin)
    readings: list[Reading] = []
    errors: dict[str, str] = {}
    for artifact in request["artifacts"]:
        try:
            readings += read(request, artifact)
        except Exception as error:  # whatever goes wrong in the client is its answer
            errors[artifact] = f"{type(error).__name__}: {error}"
    print(json.dumps({"client": client, "readings": readings, "errors": errors}))
