"""Several processes that train one model, as `accelerate launch` and `torchrun` start them.

The launcher tells each by the environment which it is. The first alone prints, keeps checkpoints and writes the
result; the others compute. An error of the first ends it, and the launcher then ends the others.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from mobile_llm.errors import MobileLlmError

Answer = TypeVar("Answer")


def count() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def silent_unless_first(work: Callable[[], Answer]) -> Answer:
    """Every process finds the same fault in the same input, and it is told once."""
    try:
        return work()
    except (MobileLlmError, KeyboardInterrupt) as error:
        if is_first():
            raise
        raise SystemExit(getattr(error, "exit_code", 130)) from None


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """A launcher that is interrupted, or whose other process has failed, ends its processes by SIGTERM: the block is
    then left as by Ctrl-C, so that nothing half-written stays."""
    if count() == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
