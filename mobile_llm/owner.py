"""One owner of native state: a context manager that is closed at its end, and refuses a second thread meanwhile."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from mobile_llm.errors import Busy

Self = TypeVar("Self", bound="Owner")


class Owner(ABC):
    """What engines have in common."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @abstractmethod
    def close(self) -> None:
        """Free native memory."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """While the block runs this thread is inside. Raises Busy where another is."""
        if not self._lock.acquire(blocking=False):
            raise Busy("this engine is in use by another thread; open one engine per thread, or wait")
        try:
            yield
        finally:
            self._lock.release()
