"""Progress of long work, on stderr: what is being done, for how long. Silent by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watch = Callable[[str], None]
Meter = Callable[[str, int, int], None]


def silent(_: str) -> None:
    """Shows nothing."""


def no_meter(_: str, done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def unmetered() -> Iterator[Meter]:
    """Shows nothing, where `metered` would."""
    yield no_meter


@contextmanager
def shown() -> Iterator[Watch]:
    """A spinner with the current step; steps that are done stay on the screen with their seconds."""
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
