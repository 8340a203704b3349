"""Processes that do not raise, and what they say of a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PATIENCE = 1800  # seconds for one installation or one client


def process(
    command: list[str], stdin: str = "", environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A process that does not raise: what keeps it from ending well is its return code and its last line."""
    settings = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=settings, cwd=cwd, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it took more than {_PATIENCE} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{Path(command[0]).name}: {error.strerror}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def reason(text: str) -> str:
    """The first lines that speak of an error: npm, pip and Node each end with a line that does not."""
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    return " | ".join(lines[:3])[:400] or last_line(text)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
