"""Weights as XNNPACK packs them for this processor, kept in a file, so that an artifact is packed once and then mapped.

The files lie in `$MOBILE_LLM_CACHE`, else in the user's folder for caches; where the variable is empty, or the folder
cannot be written to, weights are packed in memory. A file's name has the artifact's sha256, LiteRT's version and the
processor's features; LiteRT itself writes anew a file that is incomplete or from another build. What nobody has opened
for thirty days is deleted when another file is written.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

IN_MEMORY = ":memory:"
_VARIABLE = "MOBILE_LLM_CACHE"
_ENDING = ".xnnpack"
_KEPT = 30 * 24 * 3600.0  # seconds


@contextmanager
def packed_weights(sha256: str | None, size: int) -> Iterator[str]:
    """Where LiteRT finds the packed weights of the file with this hash and size, or puts them while the block runs."""
    kept = _place(sha256) if sha256 else None
    if kept and kept.exists():
        os.utime(kept)
        yield str(kept)
    elif kept and shutil.disk_usage(kept.parent).free >= 2 * size:
        with _written(kept) as path:
            yield str(path)
    else:
        yield IN_MEMORY


def _place(sha256: str) -> Path | None:
    """None where nothing can be kept."""
    folder = _folder()
    if folder is None or os.name != "posix" or set(str(folder)) & set('"\\'):  # it is quoted in LiteRT's options
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:
        return None
    return folder / f"{sha256[:32]}-{version('ai-edge-litert')}-{_processor()}{_ENDING}"


@contextmanager
def _written(kept: Path) -> Iterator[Path]:
    """A sibling that becomes `kept` when the block has ended well."""
    _forget_old(kept.parent)
    sibling = kept.with_suffix(f".{os.getpid()}")
    try:
        yield sibling
        with suppress(FileNotFoundError):  # a model without weights to pack
            sibling.replace(kept)
    finally:
        sibling.unlink(missing_ok=True)


def _forget_old(folder: Path) -> None:
    for path in folder.glob(f"*{_ENDING}"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink()


def _folder() -> Path | None:
    if (named := os.environ.get(_VARIABLE)) is not None:
        return Path(named) if named else None
    base = Path.home() / "Library/Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or base) / "mobile_llm"


@cache
def _processor() -> str:
    """The same for processors that pack alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]
