"""A contestant's runner as a living process: asked one thing at a time, by lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.processes import last_line

_PATIENCE = 900  # seconds for one answer
Answer = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """Who takes part: how its runner is started, what it loads (`settings`), and how large that is on disk."""

    name: str
    ours: bool
    command: tuple[str, ...]
    settings: Mapping[str, Any]
    size_bytes: int
    variables: Mapping[str, str] = field(default_factory=dict)


class Failed(Exception):
    """A runner that died, was silent for too long, or answered with an error. The message is for the report."""


class NotOffered(Exception):
    """A runtime that does not offer what it was asked for."""


class Living:
    """Started and loaded; ends with the `with` block. `loaded` is its first answer. Raises Failed."""

    def __init__(self, contestant: Contestant) -> None:
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - until close()
        self._process = subprocess.Popen(
            [*contestant.command, json.dumps(contestant.settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **contestant.variables},
        )
        try:
            self.loaded = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **wanted: Any) -> Answer:
        """Raises Failed, NotOffered."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"do": do, **wanted}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End the process, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Living:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> Answer:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], _PATIENCE)[0]:
            raise Failed(f"no answer after {_PATIENCE} s")
        line = stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        if "not_checked" in answer:
            raise NotOffered(answer["not_checked"])
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        return f"its process ended with {self._process.returncode}: {last_line(self._said.read())[:300]}"


def size_of(path: Path, pattern: str = "*") -> int:
    """Bytes of a file, or of the files in a folder that match."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.glob(pattern) if f.is_file())
