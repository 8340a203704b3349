"""`mobile_llm.serving.desk` without HTTP: order, limit, cancelling, what the model raises."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mobile_llm.errors import Busy, Cancelled, InvalidInput
from mobile_llm.serving.desk import Desk, Job


class Letters:
    """Work that gives the letters of a word, once it may."""

    def __init__(self, word: str, go: threading.Event) -> None:
        self._word = word
        self._go = go
        self.closed = False

    def __iter__(self) -> Iterator[str]:
        for letter in self._word:
            assert self._go.wait(10)
            if self.closed:
                raise Cancelled("closed")
            yield letter

    def close(self) -> None:
        self.closed = True


async def _read(job: Job[str]) -> str:
    return "".join([item async for item in job.items()])


def test_one_at_a_time_in_the_order_they_came() -> None:
    async def run() -> None:
        desk, go = Desk(queue=2), threading.Event()
        began: list[str] = []

        def begin(word: str) -> Letters:
            began.append(word)
            return Letters(word, go)

        jobs = [desk.submit(lambda word=word: begin(word)) for word in ("one", "two", "three")]  # type: ignore[misc]
        with pytest.raises(Busy, match="one request is being answered and 2 wait"):
            desk.submit(lambda: begin("four"))
        assert desk.waiting == 2
        go.set()
        assert await asyncio.gather(*map(_read, reversed(jobs))) == ["three", "two", "one"]
        assert began == ["one", "two", "three"]
        assert desk.waiting == 0
        desk.close()

    asyncio.run(run())


def test_with_no_queue_the_next_may_come_as_soon_as_the_end_is_heard() -> None:
    async def run() -> None:
        desk, go = Desk(queue=0), threading.Event()
        go.set()
        for _ in range(200):
            assert await _read(desk.submit(lambda: Letters("a", go))) == "a"
        desk.close()

    asyncio.run(run())


def test_cancelling_closes_what_is_under_way_and_forgets_what_waits() -> None:
    async def run() -> None:
        desk, go = Desk(queue=2), threading.Event()
        begun = threading.Event()
        work = Letters("one", go)
        first = desk.submit(lambda: begun.set() or work)  # type: ignore[func-returns-value]
        second, third = desk.submit(lambda: Letters("two", go)), desk.submit(lambda: Letters("three", go))
        await asyncio.to_thread(begun.wait, 10)
        second.cancel()
        assert desk.waiting == 1
        first.cancel()
        go.set()
        with pytest.raises(Cancelled):
            await _read(first)
        assert await _read(third) == "three"
        third.cancel()
        desk.close()

    asyncio.run(run())


def test_what_the_model_raises_reaches_the_reader_and_the_desk_goes_on() -> None:
    async def run() -> None:
        desk, go = Desk(queue=2), threading.Event()
        go.set()

        def refuse() -> Letters:
            raise InvalidInput("no")

        with pytest.raises(InvalidInput, match="no"):
            await _read(desk.submit(refuse))
        assert await _read(desk.submit(lambda: Letters("one", go))) == "one"
        desk.close()

    asyncio.run(run())
