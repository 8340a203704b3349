"""Several processes that train one model, as `accelerate launch` and `torchrun` start them.

The launcher tells each by the environment which it is. The first alone prints, keeps checkpoints and writes the
result; the others compute. A process that ends by an error makes the launcher end all others at once: so the others
leave it to the first to tell of a fault and to end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from mobile_llm.errors import MobileLlmError

Answer = TypeVar("Answer")
FIRST_SPEAKS_WITHIN = 30.0  # seconds; the first may still be importing what the others have imported


def count() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def told_once(work: Callable[[], Answer]) -> Answer:
    """What `work` answers; of a fault that every process finds in the same input the first alone tells.

    The others wait until the launcher ends them, as it does when the first has told. If it has not within
    `FIRST_SPEAKS_WITHIN`, the fault is this process's own, and is raised here too.
    """
    try:
        return work()
    except KeyboardInterrupt:
        if is_first():
            raise
        raise SystemExit(130) from None
    except MobileLlmError:
        if not is_first():
            time.sleep(FIRST_SPEAKS_WITHIN)
        raise


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
