"""Outputs appear whole or not at all: written to a temporary sibling, renamed when every check has passed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobile_llm.errors import InvalidSpec, OutputExists


def refuse_taken(output: Path, force: bool) -> None:
    """Raises OutputExists before any work is done."""
    if output.exists() and not force:
        raise OutputExists(f"{output} exists; choose another output, or pass --force to replace it")
    if output.is_file():
        raise OutputExists(f"{output} is a file, and a folder goes there; choose another output")


def save_json(path: Path, document: Any) -> None:
    """Write a document whole or not at all; an earlier one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)


@contextmanager
def staged_folder(output: Path, force: bool, marker: str) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` when the block ends without an error.

    With `force`, a folder that holds `marker` (what we would have written) or nothing is replaced at that
    moment and not before; any other folder is the user's own and is refused.
    """
    output = output.absolute()
    refuse_taken(output, force)
    if output.exists() and any(output.iterdir()) and not (output / marker).is_file():
        raise InvalidSpec(f"{output} holds no {marker}, so it is not ours to replace; choose another output")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        staging.chmod(0o755)
        yield staging
        _replace(output, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(output: Path, staging: Path) -> None:
    """Swap the new folder in; an old one is only deleted once the new one stands."""
    if not output.exists():
        staging.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    output.rename(old / output.name)
    try:
        staging.rename(output)
    except OSError:
        (old / output.name).rename(output)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
