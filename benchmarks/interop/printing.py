"""The comparison as a table, then each note in full; or as plain data."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.interop.compare import Report
from benchmarks.interop.judge import Row

# Columns that are shown where a row has something in them: heading, field, form
_FIGURES = (
    ("difference", "difference", ".2g"),
    ("cosine", "cosine", ".6f"),
    ("labels differ", "labels_differ", "d"),
    ("tokens differ", "tokens_differ", "d"),
    ("same texts", "same_texts", "s"),
)


def print_report(report: Report) -> None:
    """The table, then each note in full."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    style = {"pass": "green", "FAIL": "bold red", "NOT CHECKED": "bold yellow"}
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    figures = {name: [_figure(getattr(row, field), form) for row in report.rows] for name, field, form in _FIGURES}
    known = {name: column for name, column in figures.items() if any(column)}
    for name in ("client", "artifact", "way", *known, "verdict"):
        table.add_column(name, justify="right" if name in known else "left")
    for row, *cells in zip(report.rows, *known.values()):
        table.add_row(row.client, row.artifact, row.way, *cells, f"[{style[row.verdict]}]{row.verdict}[/]")
    console.print(table)
    for name, versions in report.clients.items():
        console.print(f"{name}: {versions}", highlight=False, markup=False)
    for row in report.rows:
        if row.note:
            where = " ".join(part for part in (row.client, row.artifact, row.way) if part)
            console.print(f"[{style[row.verdict]}]{row.verdict}[/] {escape(f'{where}: {row.note}')}", highlight=False)


def finite(row: Row) -> dict[str, Any]:
    """The row for JSON, which has no NaN; the note has it."""
    return {
        name: None if value in (np.inf, -np.inf) or value != value else value for name, value in asdict(row).items()
    }


def _figure(value: float | int | str | None, form: str) -> str:
    return "" if value is None else format(value, form)
