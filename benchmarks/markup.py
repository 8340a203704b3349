"""Pieces of the page: tables, facts, bars. Every text is escaped here, so that nothing of a bundle is markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LABEL, _WIDTH, _ROW, _RIGHT = 92, 420, 21, 62


@dataclass(frozen=True)
class Cell:
    """A table cell; `kind` is a class of the style sheet: n (number), id, passed, failed, not_checked."""

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


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    cards = "".join(f"<div><span>{escape(name)}</span><b>{escape(value)}</b></div>" for name, value in pairs)
    return f'<div class="facts">{cards}</div>'


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
    spoken = escape(f"{caption}: " + "; ".join(f"{r.label} {_value(r, unit)}" for r in rows))
    svg = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{spoken}">{inside}{axis}</svg>'
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def short(value: float) -> str:
    """About three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


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
