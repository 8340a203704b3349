"""Verification rows as a table for people or JSON for programs. What was not checked is as loud as a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporters.verification.evaluation import Evaluation, Score
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
        table.add_row(row.artifact, row.metric, _number(row.value), _number(row.limit), str(count), shown, row.where)
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


def print_evaluation(result: Evaluation, as_json: bool) -> None:
    """Print the task's figures to stdout, the PyTorch model first."""
    if as_json:
        from mobile_llm.commands import print_json

        print_json(result.as_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.metric} on {result.examples:,} rows", title_justify="left")
    for name in ("", result.metric, "difference, 95 % interval", "same label as PyTorch", "rows that differ"):
        table.add_column(name, justify="left" if not name else "right")
    if result.reference is not None:
        table.add_row("PyTorch model", f"{result.reference:.4f}", "", "", "")
    for artifact_id, score in result.scores.items():
        table.add_row(artifact_id, f"{score.value:.4f}", *_beside_the_model(score))
    for artifact_id in result.not_checked:
        table.add_row(artifact_id, f"[{_STYLE['not_checked']}]not checked[/]", "", "", "")
    Console().print(table)
    for artifact_id, reason in result.not_checked.items():
        Console().print(f"{artifact_id}: {reason}", style=_STYLE["not_checked"])


def _beside_the_model(score: Score) -> tuple[str, str, str]:
    difference = score.difference
    if difference is None or score.agreement is None:
        return "", "", ""
    points = f"{100 * difference.mean:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}] points"
    return points, f"{score.agreement:.2%}", str(len(score.disagreements))
