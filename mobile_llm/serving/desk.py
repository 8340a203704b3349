"""One model, one request at a time: those that come meanwhile wait in the order they came, up to a limit.

                 submit                    the one before is done
    (a request) --------> waiting ------------------------------------> working ---> done
                   |         |  cancel                                     | cancel
                   v         v                                             v
                 Busy     forgotten                      its answer is undone, the next one begins

The model works in a thread of its own. What it makes waits for its reader on the event loop's side, so a slow reader
holds up nobody; since an answer has no more pieces than the context has tokens, what waits is bounded too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mobile_llm.errors import Busy, Cancelled

Item = TypeVar("Item")
ItemOut = TypeVar("ItemOut", covariant=True)


class Work(Protocol[ItemOut]):
    """What the model does for one request, item by item. `close` may be called from any thread, and does not wait."""

    def __iter__(self) -> Iterator[ItemOut]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Job(Generic[Item]):
    """One request's work. Made and read on the event loop, done in the model's thread."""

    def __init__(self, begin: Callable[[], Work[Item]]) -> None:
        self.waited = 0.0  # seconds
        self._begin = begin
        self._asked = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | _End] = asyncio.Queue()
        self._work: Work[Item] | None = None
        self._cancelled = False
        self._future: Future[None] | None = None

    async def items(self) -> AsyncIterator[Item]:
        """What is made, as it is made. Raises what the work raises."""
        while True:
            item = await self._items.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def cancel(self) -> None:
        """Forget it, or undo what was done of it. Nothing happens once it is done."""
        self._cancelled = True
        if self._future is not None and not self._future.cancel() and self._work is not None:
            self._work.close()

    def start(self, thread: ThreadPoolExecutor, done: Callable[[Job[Item]], None]) -> None:
        """Have it done in `thread` when its turn comes; `done` is called before its reader hears of the end."""
        self._future = thread.submit(self._run)
        self._future.add_done_callback(lambda future: self._end(future, done))

    def _run(self) -> None:
        self.waited = time.perf_counter() - self._asked
        self._work = work = self._begin()
        if self._cancelled:  # meanwhile, when there was nothing to close yet
            work.close()
        for item in work:
            self._put(item)

    def _end(self, future: Future[None], done: Callable[[Job[Item]], None]) -> None:
        done(self)
        self._put(_End(Cancelled("this request was cancelled") if future.cancelled() else future.exception()))

    def _put(self, item: Item | _End) -> None:
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class Desk:
    """Takes requests for one model; at most `queue` of them wait."""

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._thread = ThreadPoolExecutor(1, "model")
        self._jobs: set[Job[object]] = set()

    @property
    def waiting(self) -> int:
        return max(0, len(self._jobs) - 1)

    def submit(self, begin: Callable[[], Work[Item]]) -> Job[Item]:
        """`begin` is called in the model's thread. Raises Busy where as many wait as may."""
        if len(self._jobs) > self._queue:
            raise Busy(
                f"one request is being answered and {self._queue} wait, which is the limit; try again in a moment, or "
                "start the server with a larger --queue"
            )
        job = Job(begin)
        self._jobs.add(job)  # type: ignore[arg-type]
        job.start(self._thread, self._jobs.discard)
        return job

    def cancel(self) -> None:
        """Cancel everything: whoever reads hears of it."""
        for job in list(self._jobs):
            job.cancel()

    def close(self) -> None:
        """Cancel everything, and wait for the step under way."""
        self.cancel()
        self._thread.shutdown()
