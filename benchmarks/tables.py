"""A benchmark on the terminal: the ceiling first, then what was measured, then what is predicted.

What was not measured is printed as loudly as a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape

from benchmarks.ceiling import Ceiling
from benchmarks.cost import Cost
from benchmarks.measure import Measurement
from benchmarks.predict import Prediction
from benchmarks.result import Result

_STYLE = {"measured": "", "failed": "bold white on red", "not_checked": "bold black on yellow"}
_NONE = "–"
_LENGTHS_ABREAST = 4


def print_ceiling(
    console: Any, ceiling: Ceiling, costs: Mapping[str, Cost], tokens: int, steps: Mapping[str, Cost]
) -> None:
    """What one pass must do at the least, and the time that takes at the most the machine gave; the same for `steps` of
    one token."""
    console.print(
        f"This machine, {ceiling.threads} threads: reads {number(ceiling.read_gbps)} GB/s, "
        f"multiplies float32 at {number(ceiling.float32_gflops)} G operations/s. No pass can be faster than:",
        highlight=False,
    )
    console.print(_ceiling_table(f"One pass of {tokens} tokens, at best", ceiling, costs))
    if steps:
        console.print(_ceiling_table(f"One token after {tokens}, at best", ceiling, steps))
    if any(cost.arithmetic == "int8" for cost in costs.values()):
        console.print("* weights read and attention only: the peak of int8 products is not measured")
    for artifact_id, cost in costs.items():
        if cost.uncounted:
            console.print(
                f"{artifact_id}: not counted {', '.join(cost.uncounted)}", style=_STYLE["not_checked"], markup=False
            )


def _ceiling_table(title: str, ceiling: Ceiling, costs: Mapping[str, Cost]) -> Any:
    table = _table(title, ("artifact", "G op", "weights MB", "in", "ms"))
    for artifact_id, cost in costs.items():
        # What an integer product could reach is not measured, so only memory and attention bound it.
        best = number(ceiling.best_ms(cost)) + (" *" if cost.arithmetic == "int8" else "")
        table.add_row(
            escape(artifact_id), f"{cost.operations / 1e9:.2f}", f"{cost.weight_bytes / 1e6:.1f}", cost.arithmetic, best
        )
    return table


def print_result(console: Any, result: Result) -> None:
    for table in (*_latency_tables(result), *_step_tables(result)):
        console.print(table)
    console.print(_load_table(result))
    for tokens in dict.fromkeys(p.tokens for p in result.predictions):
        console.print(_prediction_table([p for p in result.predictions if p.tokens == tokens], tokens))
    for artifact_id, reason in result.failed.items():
        console.print(f"{artifact_id} failed: {reason}", style=_STYLE["failed"], highlight=False, markup=False)
    if result.not_checked:
        names = ", ".join(result.not_checked)
        reasons = "; ".join(dict.fromkeys(result.not_checked.values()))
        line = f"NOT MEASURED: {names}. {reasons}"
        console.print(line, style=_STYLE["not_checked"], highlight=False, markup=False)


def number(value: float | None) -> str:
    """Three significant digits, plainly."""
    if value is None:
        return _NONE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def megabytes(value: int | None) -> str:
    return _NONE if value is None else f"{value / 1e6:.0f}"


def _latency_tables(result: Result) -> Iterator[Any]:
    """As many lengths in a table as 80 columns hold."""
    for start in range(0, len(result.lengths), _LENGTHS_ABREAST):
        yield _latency_table(result, result.lengths[start : start + _LENGTHS_ABREAST])


def _latency_table(result: Result, lengths: Sequence[int]) -> Any:
    rated = result.tokens in lengths
    what = "Time to first token in ms, prompts of N tokens" if result.step_costs else "Latency in ms at N tokens"
    title = f"{what}, median (p90), rounds: {result.rounds}"
    title += f"; throughput at N={result.tokens}" if rated else ""
    table = _table(title, ("artifact", *(f"N={length}" for length in lengths), *(["tokens/s"] if rated else [])))
    for artifact_id, measurement in result.measurements.items():
        if measurement.status != "measured":
            table.add_row(escape(artifact_id), _status(measurement))
            continue
        found = [measurement.latency[length] for length in lengths]
        cells = [f"{number(x.p50_ms)} ({number(x.p90_ms)})" for x in found]
        rate = [f"{measurement.latency[result.tokens].tokens_per_second:,.0f}"] if rated else []
        table.add_row(escape(artifact_id), *cells, *rate)
    return table


def _step_tables(result: Result) -> Iterator[Any]:
    """Of artifacts that write: a step's time, and how many there are in a second."""
    for start in range(0, len(result.lengths) if result.step_costs else 0, _LENGTHS_ABREAST):
        lengths = result.lengths[start : start + _LENGTHS_ABREAST]
        columns = ("artifact", *(f"N={length}" for length in lengths))
        table = _table("Writing after N tokens: ms a token, median (tokens/s)", columns)
        for artifact_id, measurement in result.measurements.items():
            if measurement.status != "measured":
                table.add_row(escape(artifact_id), _status(measurement))
                continue
            found = [measurement.steps[length] for length in lengths]
            cells = [f"{number(x.p50_ms)} ({x.tokens_per_second:,.0f})" for x in found]
            table.add_row(escape(artifact_id), *cells)
        yield table


def _load_table(result: Result) -> Any:
    columns = ("artifact", "size MB", "load ms", "of it hashes", "peak MB", "above imports")
    table = _table("Size, load time, memory", columns)
    for artifact_id, m in result.measurements.items():
        size = f"{result.sizes[artifact_id] / 1e6:.1f}"
        if m.status != "measured":
            table.add_row(escape(artifact_id), size, _status(m))
        else:
            memory = megabytes(m.peak_bytes), megabytes(m.above_imports_bytes)
            table.add_row(escape(artifact_id), size, number(m.load_ms), number(m.check_ms), *memory)
    return table


def _prediction_table(predictions: Sequence[Prediction], tokens: int) -> Any:
    """A row a device and artifact; a column an artifact would be too wide."""
    title = f"Predicted for phones, {_size(tokens)}: CPU, from data sheets, no phone measured"
    table = _table(title, ("device", "artifact", "ms", "from … to", "memory MB", "fits", "grade"))
    last = ""
    for p in predictions:
        memory = f"{p.memory_bytes[0] / 1e6:.0f} … {p.memory_bytes[1] / 1e6:.0f}"
        device = p.device if p.device != last else ""
        interval = f"{number(p.low_ms)} … {number(p.high_ms)}"
        table.add_row(device, escape(p.artifact), number(p.latency_ms), interval, memory, fits(p.fits), p.grade)
        last = p.device
    return table


def _size(tokens: int) -> str:
    return f"{tokens} tokens" if tokens > 1 else "writing one token"


def fits(value: bool | None) -> str:
    return "depends" if value is None else "yes" if value else "no"


def _status(measurement: Measurement) -> str:
    return f"[{_STYLE[measurement.status]}]{measurement.status.replace('_', ' ')}[/]"


def _table(title: str, columns: Iterable[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        text = name in ("artifact", "device", "in", "fits", "grade")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table
