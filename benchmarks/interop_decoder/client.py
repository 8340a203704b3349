"""LiteRT-LM in an environment of its own, started once for each request."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.interop.process import last_line, process, reason, say
from mobile_llm.errors import BackendUnavailable

VERSION = "0.18.1"
_SCRIPT = Path(__file__).with_name("litert_lm_client.py")
_PROBE = "import litert_lm, importlib.metadata as m; print(m.version('litert-lm'))"


def install(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, made where there is none. Raises BackendUnavailable with what
    pip says of its failure."""
    python = folder / "bin" / "python"
    if last_line(process([str(python), "-c", _PROBE]).stdout) != VERSION:
        say(f"installing litert-lm {VERSION}")
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", f"litert-lm=={VERSION}"],
        ):
            done = process(command)
            if done.returncode:
                raise BackendUnavailable(f"litert-lm {VERSION} cannot be installed: {reason(done.stderr)}")
    return python


def ask(python: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises BackendUnavailable with what it says where it does not answer."""
    # Its packages are its own: ours on PYTHONPATH would come first.
    done = process([str(python), str(_SCRIPT)], json.dumps(request), {"PYTHONPATH": ""})
    if done.returncode:
        raise BackendUnavailable(reason(done.stderr))
    answer: dict[str, Any] = json.loads(last_line(done.stdout))
    return answer
