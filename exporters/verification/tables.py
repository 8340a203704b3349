"""Verification rows as a table for people or JSON for programs. What was not checked is as loud as a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporters.verification.evaluation import Evaluation, Score
from exporters.verification.rows import Row, sentence, summary

# A metric's name in a narrow column.
_SHORT = {
    "largest_difference": "largest difference",
    "relative_error": "relative error",
    "scaled_difference": "difference, of the scale",
    "smallest_cosine": "smallest cosine",
    "texts whose ids differ": "ids that differ",
    "texts whose ids differ in the graph": "ids that differ",
    "texts whose decoding differs": "decoded texts",
    "points of accuracy lost": "points lost",
    "points of F1 lost": "points lost",
    "points of correlation lost": "points lost",
    "share_of_spread": "difference, of the spread",
    "labels that differ from config.json": "config's labels",
}
_RUNTIMES = {"ai-edge-litert": "LiteRT", "tensorflow": "TensorFlow", "mobile-llm": "MIL evaluator"}
_STYLE = {"passed": "green", "failed": "bold white on red", "not_checked": "bold black on yellow"}


def print_rows(rows: Sequence[Row], as_json: bool, more: Mapping[str, Any]) -> None:
    """Print to stdout; `more` is added to the JSON document."""
    if as_json:
        from mobile_llm.commands import print_json

        print_json({**more, "summary": summary(rows), "rows": [row.as_json() for row in rows]})
        return
    from rich.console import Console

    console = Console()
    console.print(_table(rows))
    counts = summary(rows)
    console.print(" · ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items()))
    for row in rows:
        if row.status != "passed":
            console.print(sentence(row), style=_STYLE[row.status], highlight=False)


def _table(rows: Sequence[Row]) -> Any:
    """One line per artifact and runtime, with the comparison that came nearest to its limit."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title="Compared with the PyTorch model", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for name in ("artifact", "run in", "nearest to limit", "value", "limit", "checks"):
        table.add_column(name, justify="right" if name in ("value", "limit") else "left", no_wrap=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.artifact, _runtime(row)), []).append(row)
    for (artifact, runtime), group in groups.items():
        worst = max(group, key=nearness)
        metric = with_short_name(worst.metric)
        table.add_row(artifact, runtime, metric, shown_number(worst.value), shown_number(worst.limit), _counts(group))
    return table


def _runtime(row: Row) -> str:
    """Who ran it: what its version is of, or what is exact about it."""
    backend, _, rest = row.where.partition(" (")
    if backend.endswith("-exact"):
        return "float32 view"
    package = rest.split()[0] if rest else backend.split()[0].rstrip(",")
    return _RUNTIMES.get(package, package)


def _counts(rows: Sequence[Row]) -> str:
    counts = summary(rows).items()
    return "\n".join(f"[{_STYLE[status]}]{n} {status.replace('_', ' ')}[/]" for status, n in counts if n)


def with_short_name(metric: str) -> str:
    return _SHORT.get(metric.split(" to the twin")[0], metric)


def nearness(row: Row) -> tuple[int, float]:
    """What failed first, then what was not checked, then how much of the limit is used up."""
    order = {"passed": 0, "not_checked": 1, "failed": 2}[row.status]
    if row.value is None or row.limit is None:
        return order, 0.0
    value, limit = (1 - row.value, 1 - row.limit) if row.limit > 0.5 and row.value <= 1.001 else (row.value, row.limit)
    return order, value / limit if limit else value


def shown_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}" if 0.9 < value < 1 else f"{value:.2g}"


def print_evaluation(result: Evaluation, as_json: bool) -> None:
    """Print the task's figures to stdout, the PyTorch model first."""
    if as_json:
        from mobile_llm.commands import print_json

        print_json(result.as_json())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    rows, unit = ("tokens", "percent") if result.metric == "perplexity" else ("rows", "points")
    title = f"{result.metric} on {result.examples:,} {rows}, beside the PyTorch model"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("", result.metric, f"{unit}, 95 % interval", "agreement", "unlike"):
        table.add_column(name, justify="left" if not name else "right")
    if result.reference is not None:
        table.add_row("PyTorch model", f"{result.reference:.4f}", "", "", "")
    for artifact_id, score in result.scores.items():
        error = f" ± {score.standard_error:.3f}" if score.standard_error else ""
        table.add_row(artifact_id, f"{score.value:.4f}{error}", *_beside_the_model(score))
    for artifact_id in result.not_checked:
        table.add_row(artifact_id, f"[{_STYLE['not_checked']}]not checked[/]", "", "", "")
    Console().print(table)
    for artifact_id, reason in result.not_checked.items():
        Console().print(f"{artifact_id}: {reason}", style=_STYLE["not_checked"])


def _beside_the_model(score: Score) -> tuple[str, str, str]:
    difference = score.difference
    if difference is None or score.agreement is None:
        return "", "", ""
    points = f"{100 * difference.mean:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    listed = score.disagreements or score.agreement == 1  # of entities and numbers none is
    return points, f"{score.agreement:.2%}", str(len(score.disagreements)) if listed else "–"
