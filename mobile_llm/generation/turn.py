"""Whose turn an engine's is: one turn at a time, from its start to its end, cancelled from any thread.

A turn is taken up step by step, by whichever thread reads its answer. Cancelling never waits: where a thread is inside
a step, that thread undoes the turn as soon as it notices; otherwise it is undone at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from mobile_llm.errors import Busy, Cancelled, InvalidSpec


class Turn:
    """One use of the engine. `undo` is called once where it does not end well, `leave` once in any case."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.undo: Callable[[], None] = lambda: None
        self.over = False
        self._leave = leave
        self._inside = threading.Lock()
        self._cancelled = threading.Event()

    @contextmanager
    def step(self) -> Iterator[None]:
        """While the block runs, this thread has the turn. What the block raises undoes the turn, and so does a cancel
        meanwhile. Raises Cancelled for a turn that was."""
        try:
            with self._inside:
                self.check()
                try:
                    yield
                except BaseException:
                    self._cancelled.set()
                    self._give_up()
                    raise
        finally:
            if self._cancelled.is_set():  # by a thread that found this one inside
                self.cancel()

    def check(self) -> None:
        """Raises Cancelled."""
        if self._cancelled.is_set():
            raise Cancelled("this turn was cancelled; the conversation is as it was before")

    def cancel(self) -> None:
        """Undo the turn, unless it is over. Does not wait."""
        if self.over:
            return
        self._cancelled.set()
        if self._inside.acquire(blocking=False):
            try:
                self._give_up()
            finally:
                self._inside.release()

    def finish(self) -> None:
        """It ended well. Called inside a step."""
        self.over = True
        self._leave()

    def _give_up(self) -> None:
        if not self.over:
            self.over = True
            try:
                self.undo()
            finally:
                self._leave()


class Turns:
    """Gives an engine's turns, and frees the engine when none is left; `free` is called once."""

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = threading.Lock()
        self._latest: Turn | None = None
        self._closed = False
        self._engine = ExitStack()
        self._engine.callback(free)

    def begin(self) -> Turn:
        """Raises Busy where another turn is not over, InvalidSpec where the model is closed."""
        if not self._free.acquire(blocking=False):
            self._refuse_closed()
            raise Busy("this model is in the middle of another turn; read that answer to its end, or cancel it")
        self._latest = turn = Turn(self._free.release)
        with turn.step():
            self._refuse_closed()
        return turn

    def close(self) -> None:
        """Cancel the turn that is under way, wait for its last step, free the engine."""
        self._closed = True
        if self._latest is not None:
            self._latest.cancel()
        with self._free:
            self._engine.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise InvalidSpec("this model is closed; load it again")
