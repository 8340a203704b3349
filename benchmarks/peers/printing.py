"""The report on a terminal: who is how fast, how large and how true, then each claim, then what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.claims import Claim
from benchmarks.peers.figures import Figures, Report
from benchmarks.tables import megabytes, number

_STYLE = {"holds": "green", "fails": "bold red", "not_checked": "bold black on yellow"}


def print_report(report: Report, found: Sequence[Claim]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    settings = " · ".join(f"{name} {value}" for name, value in report.settings.items())
    console.print(f"{report.host['cpu']}, {settings}", highlight=False, markup=False)
    console.print(_contestants(report))
    console.print(_claims(found))
    for figures in report.contestants.values():
        for style, note in ((_STYLE["fails"], figures.failed), (_STYLE["not_checked"], figures.not_offered)):
            if note:
                console.print(f"{figures.name}: {note}", style=style, highlight=False, markup=False)
    for name, reason in report.missing.items():
        line = f"NOT CHECKED: {name}. {reason}"
        console.print(line, style=_STYLE["not_checked"], highlight=False, markup=False)


def _contestants(report: Report) -> Any:
    lengths = report.settings["lengths"]
    rates = [f"prefill {length}" for length in lengths]
    columns = ("MB", *rates, "decode", "load ms", "TTFT ms", "memory MB", "of it KV", "perplexity", "±", "KL", "same")
    table = _table("Tokens a second, medians over the rounds", ("contestant", *columns))
    for f in report.contestants.values():
        speeds = [number(f.prefill.get(length)) for length in lengths]
        times = (number(f.decode), number(f.load_ms), number(f.first_ms))
        size = f"{f.size_bytes / 1e6:.1f}"
        table.add_row(f.name, size, *speeds, *times, megabytes(f.memory_bytes), megabytes(f.kv_bytes), *_quality(f))
    return table


def _quality(f: Figures) -> tuple[str, ...]:
    forms = ((f.perplexity, ".3f"), (f.perplexity_error, ".2f"), (f.divergence, ".4f"), (f.same, ".3f"))
    return tuple("–" if value is None else format(value, form) for value, form in forms)


def _claims(found: Sequence[Claim]) -> Any:
    table = _table("Claims", ("claim", "ours", "beside", "value", "middle half", "limit", "verdict"))
    for claim in found:
        spread = "" if claim.spread is None else f"{claim.spread[0]:.2f} … {claim.spread[1]:.2f}"
        verdict = f"[{_STYLE[claim.verdict]}]{claim.verdict.replace('_', ' ')}[/]"
        figures = (number(claim.value), spread, number(claim.limit))
        table.add_row(claim.what, claim.ours, claim.peer, *figures, verdict)
    return table


def _table(title: str, columns: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        text = name in ("contestant", "claim", "ours", "beside", "verdict")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table
