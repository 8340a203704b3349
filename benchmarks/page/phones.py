"""Predictions for phones as a page shows them: a chart of intervals per artifact, every figure in a fold."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import devices
from benchmarks.page.markup import Cell, Span, charts, fold, heading, paragraph, spans, table
from benchmarks.predict import GRADE, THREADS, Prediction
from benchmarks.result import Result
from benchmarks.tables import fits, number


def section(result: Result) -> str:
    """Nothing where no phone was asked for."""
    found = result.predictions
    if not found:
        return ""
    intro = (
        f"First estimates for {_what(result)} on the {THREADS} fastest CPU cores, graded {GRADE}: from data "
        "sheets alone. No phone was measured, GPUs and neural engines are left out, and how often the truth lies "
        "inside an interval is not known. The dot is the geometric middle; the scale is logarithmic and the same in "
        "all charts."
    )
    ends = min(p.low_ms for p in found), max(p.high_ms for p in found)
    charted = dict.fromkeys((p.artifact, p.tokens) for p in found)
    figures = (spans(_title(*one), _spans(found, *one), "ms", *ends) for one in charted)
    parts = [heading("Predicted for phones"), paragraph(intro, "note"), charts(figures), _phones(found)]
    return "".join([*parts, fold(f"All {len(found)} predictions, and what went into each", _all(found))])


def _what(result: Result) -> str:
    return f"{result.tokens} tokens" + (" of a prompt, and for writing one" if result.step_costs else "")


def _title(artifact: str, tokens: int) -> str:
    return artifact if tokens > 1 else f"{artifact}, writing one token"


def _spans(found: Sequence[Prediction], artifact: str, tokens: int) -> list[Span]:
    chosen = (p for p in found if (p.artifact, p.tokens) == (artifact, tokens))
    return [Span(p.device, p.latency_ms, p.low_ms, p.high_ms) for p in chosen]


def _phones(found: Sequence[Prediction]) -> str:
    """A line a phone: what it is, and whether its memory is likely to suffice."""
    columns = ("phone", "chip", "tier", "memory GB", "fits in memory", "data sheet")
    return table(columns, (_phone(name, found) for name in dict.fromkeys(p.device for p in found)))


def _phone(name: str, found: Sequence[Prediction]) -> list[Cell]:
    device = devices.load(name)
    least, most = device.ram_gb
    memory = f"{least}" if least == most else f"{least} to {most}"
    texts = (f"{device.soc} ({device.year})", device.tier, memory, _fitting([p for p in found if p.device == name]))
    return [Cell(name, "id"), *map(Cell, texts), Cell(f"confidence {device.confidence}: {device.source}", "long")]


def _fitting(found: Sequence[Prediction]) -> str:
    """In a word where all agree, else artifact by artifact."""
    answers = {p.artifact: fits(p.fits) for p in found}
    if len(set(answers.values())) == 1:
        return next(iter(answers.values()))
    return ", ".join(f"{artifact} {answer}" for artifact, answer in answers.items())


def _all(found: Sequence[Prediction]) -> str:
    columns = ("phone", "artifact", "tokens", "ms", "from … to", "bound by", "memory MB", "fits", "grade", "from what")
    return table(columns, map(_row, found))


def _row(p: Prediction) -> list[Cell]:
    memory = " … ".join(f"{size / 1e6:.0f}" for size in p.memory_bytes)
    times = (number(p.latency_ms), f"{number(p.low_ms)} … {number(p.high_ms)}")
    middle = [Cell(p.bound), Cell(memory, "n"), Cell(fits(p.fits)), Cell(p.grade)]
    return [
        Cell(p.device, "id"),
        Cell(p.artifact, "id"),
        Cell(str(p.tokens), "n"),
        *(Cell(text, "n") for text in times),
        *middle,
        Cell(p.why, "long"),
    ]
