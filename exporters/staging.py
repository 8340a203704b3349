"""Outputs appear whole or not at all: written to a temporary sibling, renamed when every check has passed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mobile_llm.errors import NotEnoughMemory, OutputExists

_ROOM = 1 << 20  # bytes; what a writer could not place may leave a remainder of some blocks


def refuse_taken(output: Path, force: bool) -> None:
    """Raises OutputExists before any work is done."""
    if output.exists() and not force:
        raise OutputExists(f"{output} exists; choose another output, or pass --force to replace it")
    if output.is_file():
        raise OutputExists(f"{output} is a file, and a folder goes there; choose another output")


def holds(name: str) -> Callable[[Path], bool]:
    """Whether a folder has a file of this name."""
    return lambda folder: (folder / name).is_file()


def save_json(path: Path, document: Any) -> None:
    """Write a document whole or not at all; an earlier one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)


@contextmanager
def staged_folder(output: Path, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` when the block ends without an error.

    With `force`, a folder that is `ours` or empty is replaced at that moment and not before; any other folder is
    the user's own and is refused. Raises NotEnoughMemory where the disk is full.
    """
    output = output.absolute()
    refuse_taken(output, force)
    if output.exists() and any(output.iterdir()) and not ours(output):
        raise OutputExists(f"{output} was not written by mobile-llm, so it is not replaced; choose another output")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        staging.chmod(0o755)
        with _full_disk_named(staging):
            yield staging
        _replace(output, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Writers in native code report a full disk in words of their own, so the file system is asked."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free < _ROOM:
            raise NotEnoughMemory(f"the disk of {folder.parent} is full ({error}); free some room and repeat") from None
        raise


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
