"""Giving freed memory back: glibc keeps what large models leave behind, and the next step would come on top of it."""

from __future__ import annotations

import ctypes
import gc
import sys


def release() -> None:
    """Collect garbage and hand free pages to the system, where the C library can."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
