"""Progress of long work, on stderr: what is being done, for how long. Silent by default; on a terminal it moves, in a
log it is a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Watch = Callable[[str], None]
Meter = Callable[[str, int, int], None]

_LINE_EVERY = 30.0  # seconds, where progress goes to a log


def silent(_: str) -> None:
    """Shows nothing."""


def counted(items: Sequence[Item], watch: Watch, step: str, times: int = 8) -> Iterator[Item]:
    """The items one by one, with `step, N of M` said at most so many times."""
    every = -(-len(items) // times)
    for index, item in enumerate(items):
        if index % every == 0:
            watch(f"{step}, {index} of {len(items)}")
        yield item


def no_meter(_: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def unmetered() -> Iterator[Meter]:
    """Shows nothing, where `metered` would."""
    yield no_meter


@contextmanager
def shown() -> Iterator[Watch]:
    """A spinner with the current step; steps that are done stay on the screen with their seconds."""
    if not sys.stderr.isatty():
        yield _say
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        current = None

        def watch(step: str) -> None:
            nonlocal current
            if current is not None:
                progress.update(current, completed=1)
            current = progress.add_task(step, total=1)

        yield watch
        if current is not None:
            progress.update(current, completed=1)


@contextmanager
def metered() -> Iterator[Meter]:
    """A bar with what is done of the whole, and the time that is left."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("preparing", total=None)

        def meter(step: str, done: int, total: int) -> None:
            progress.update(task, description=step, completed=done, total=total)

        yield meter


def _say(step: str) -> None:
    sys.stderr.write(f"{step}\n")
    sys.stderr.flush()


def _lines() -> Meter:
    """A line every half minute, with the minutes that are left at this pace, and one at the end."""
    started = last = time.monotonic()

    def meter(step: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _LINE_EVERY:
            last = now
            left = (now - started) / max(done, 1) * (total - done) / 60
            _say(f"{step}: {done} of {total}, {left:.1f} minutes left")

    return meter
