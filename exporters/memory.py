"""Giving freed memory back: glibc keeps what large models leave behind, and the next step would come on top of it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def release() -> None:
    """Collect garbage and hand free pages to the system, where the C library can."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


@contextmanager
def new_garbage_only() -> Iterator[None]:
    """While the block runs, collections look only at what it makes: with a few frameworks imported a process holds
    millions of objects, and to look at them all takes a second each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
