"""Pieces of the page: tables, facts, bars. Every text is escaped here, so that nothing of a bundle is markup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_LABEL, _WIDTH, _ROW, _RIGHT = 92, 420, 21, 62
_SPAN_LABEL, _SPAN_RIGHT = 118, 14


@dataclass(frozen=True)
class Cell:
    """A table cell; `kind` is a class of the style sheet: n (number), id, long, passed, failed,
    not_checked."""

    text: str
    kind: str = ""
    span: int = 1

    def html(self) -> str:
        return f"<td{_class(self.kind)}{_span(self.span)}>{escape(self.text)}</td>"


@dataclass(frozen=True)
class Bar:
    """A row of a chart; without a value, `note` stands where the bar would be."""

    label: str
    value: float | None = None
    tail: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Span:
    """A row of a chart of intervals."""

    label: str
    middle: float
    low: float
    high: float


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A column's heading is aligned as its first plain cell."""
    body = [list(row) for row in rows]
    sample = next((row for row in body if all(cell.span == 1 for cell in row)), [])
    kinds = [cell.kind if cell.kind == "n" else "" for cell in sample] or [""] * len(columns)
    head = "".join(f"<th{_class(kind)}>{escape(name)}</th>" for name, kind in zip(columns, kinds))
    lines = "\n".join("<tr>" + "".join(cell.html() for cell in row) + "</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{escape(text)}</p>"


def facts(cards: Iterable[tuple[str, str, str]]) -> str:
    """Cards: what it is, its value, and what it belongs to."""
    inside = "".join(_card(*card) for card in cards)
    return f'<div class="facts">{inside}</div>'


def loud(title: str, lines: Iterable[str], bad: bool = False) -> str:
    """A box that nobody overlooks."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<div class="loud{" bad" if bad else ""}" role="note"><strong>{escape(title)}</strong><ul>{items}</ul></div>'
    )


def fold(summary: str, inside: str) -> str:
    """`inside` is markup already."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def bars(caption: str, rows: Sequence[Bar], unit: str) -> str:
    """A horizontal bar chart; the pale end of a bar reaches to `tail`."""
    largest = max((max(row.value, row.tail or 0) for row in rows if row.value is not None), default=1.0) or 1.0
    scale = (_WIDTH - _LABEL - _RIGHT) / largest
    height = _ROW * len(rows) + 4
    inside = "".join(_bar(row, _ROW * i + 2, scale, unit) for i, row in enumerate(rows))
    axis = f'<line class="axis" x1="{_LABEL}" y1="0" x2="{_LABEL}" y2="{height}"/>'
    spoken = "; ".join(f"{row.label} {_value(row, unit)}" for row in rows)
    return _figure(caption, spoken, height, inside + axis)


def spans(caption: str, rows: Sequence[Span], unit: str, lowest: float, highest: float) -> str:
    """Intervals on a logarithmic scale, over whole powers of ten that hold `lowest` and `highest` (positive)."""
    first = floor(log10(lowest))
    decades = max(1, ceil(log10(highest)) - first)
    wide = (_WIDTH - _SPAN_LABEL - _SPAN_RIGHT) / decades

    def at(value: float) -> float:
        return _SPAN_LABEL + wide * (log10(value) - first)

    bottom = _ROW * len(rows) + 4
    ticks = "".join(_tick(10.0 ** (first + i), at(10.0 ** (first + i)), bottom) for i in range(decades + 1))
    inside = "".join(_span_row(row, _ROW * i + 2, at) for i, row in enumerate(rows))
    spoken = "; ".join(f"{r.label} {short(r.middle)} {unit}, {short(r.low)} to {short(r.high)}" for r in rows)
    return _figure(f"{caption}, {unit}", spoken, bottom + 16, ticks + inside)


def charts(figures: Iterable[str]) -> str:
    """Charts side by side where there is room."""
    return f'<div class="charts">{"".join(figures)}</div>'


def short(value: float) -> str:
    """About three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _card(name: str, value: str, note: str) -> str:
    return f"<div><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(note)}</span></div>"


def _figure(caption: str, spoken: str, height: int, inside: str) -> str:
    """`spoken` is for readers who cannot see it."""
    label = escape(f"{caption}: {spoken}")
    svg = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{inside}</svg>'
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _tick(value: float, x: float, bottom: int) -> str:
    line = f'<line class="axis" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>'
    return line + f'<text class="soft" x="{x:.1f}" y="{bottom + 12}" text-anchor="middle">{value:g}</text>'


def _span_row(row: Span, top: int, at: Callable[[float], float]) -> str:
    left, right, middle = at(row.low), at(row.high), at(row.middle)
    label = f'<text x="{_SPAN_LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(row.label)}</text>'
    tail = f'<rect class="tail" x="{left:.1f}" y="{top + 5}" width="{max(right - left, 1):.1f}" height="8" rx="4"/>'
    return f'{label}{tail}<circle class="bar" cx="{middle:.1f}" cy="{top + 9}" r="4"/>'


def _bar(row: Bar, top: int, scale: float, unit: str) -> str:
    middle = top + 13
    label = f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end">{escape(row.label)}</text>'
    if row.value is None:
        return label + f'<text class="warn" x="{_LABEL + 6}" y="{middle}">{escape(row.note)}</text>'
    end = max(row.value, row.tail or 0) * scale
    tail = f'<rect class="tail" x="{_LABEL}" y="{top + 3}" width="{end:.1f}" height="12"/>'
    bar = f'<rect class="bar" x="{_LABEL}" y="{top + 3}" width="{row.value * scale:.1f}" height="12"/>'
    text = f'<text class="soft" x="{_LABEL + end + 6:.1f}" y="{middle}">{escape(_value(row, unit))}</text>'
    return label + tail + bar + text


def _value(row: Bar, unit: str) -> str:
    return row.note if row.value is None else f"{short(row.value)} {unit}"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _span(span: int) -> str:
    return f' colspan="{span}"' if span > 1 else ""
