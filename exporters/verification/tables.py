"""Verification rows as a table for people or JSON for programs. What was not checked is as loud as a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporters.verification.rows import Row, summary

_STYLE = {"passed": "green", "failed": "bold white on red", "not_checked": "bold black on yellow"}


def print_rows(rows: Sequence[Row], as_json: bool, more: Mapping[str, Any]) -> None:
    """Print to stdout; `more` is added to the JSON document."""
    if as_json:
        from mobile_llm.commands import print_json

        print_json({**more, "summary": summary(rows), "rows": [row.as_json() for row in rows]})
        return
    from rich.console import Console

    console = Console()
    console.print(_table(_worst(rows)))
    counts = summary(rows)
    console.print(" · ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items()))


def _table(rows: Sequence[tuple[Row, int]]) -> Any:
    from rich.table import Table

    table = Table(title="Compared with the PyTorch model", title_justify="left")
    for name in ("artifact", "metric", "worst", "limit", "rows", "status", "where"):
        table.add_column(name, justify="right" if name in ("worst", "limit", "rows") else "left")
    for row, count in rows:
        style = _STYLE[row.status]
        shown = f"[{style}]{row.status.replace('_', ' ')}[/]"
        table.add_row(
            row.artifact, row.metric, _number(row.value), _number(row.limit), str(count), shown, row.where
        )
    return table


def _worst(rows: Sequence[Row]) -> list[tuple[Row, int]]:
    """One line per artifact, metric and runtime: the row nearest to its limit, or beyond it."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.artifact, row.metric, row.where), []).append(row)
    return [(max(group, key=_badness), len(group)) for group in groups.values()]


def _badness(row: Row) -> tuple[int, float]:
    order = {"passed": 0, "not_checked": 1, "failed": 2}[row.status]
    if row.value is None or row.limit is None:
        return order, 0.0
    upward = "cosine" in row.metric or "agreement" in row.metric
    return order, (row.limit - row.value) if upward else (row.value - row.limit)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}" if 0.9 < value < 1 else f"{value:.3g}"
