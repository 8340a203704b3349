"""What was measured on this host, as a page shows it: latency by length, size, load time, memory, the ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from benchmarks.measure import Latency, Measurement
from benchmarks.page.markup import Bar, Cell, bars, charts, fold, heading, paragraph, short, table
from benchmarks.result import Result

_NONE = Cell("–", "n")


def latency(result: Result) -> str:
    """A chart per length, then the figures."""
    intro = (
        f"Batch 1, {result.threads} threads, {result.rounds} turns of each artifact, every turn in a fresh process. "
        "A bar is the median; its pale end reaches to the 90th percentile. This machine's figures say which artifact "
        "is lighter, not how fast a phone is."
    )
    figures = charts(
        bars(f"{length} tokens", list(_bars(result, length, "latency")), "ms") for length in result.lengths
    )
    medians = table(("artifact", *(f"{n} tokens" for n in result.lengths)), _medians(result))
    columns = ("artifact", "tokens", "p50 ms", "p90 ms", "p99 ms", "tokens/s", "runs", "ran padded to")
    rows = (row for item in result.measurements.items() for row in _latency_rows(*item))
    details = fold("Percentiles, throughput, number of runs", table(columns, rows))
    return "".join([heading("Latency on this machine"), paragraph(intro, "note"), figures, medians, details])


def steps(result: Result) -> str:
    """Of models that write: the time of a token. Nothing for others."""
    if not result.step_costs:
        return ""
    intro = "One token more after so many; what is above is the time until the first."
    figures = charts(bars(f"after {n} tokens", list(_bars(result, n, "steps")), "ms") for n in result.lengths)
    columns = ("artifact", *(f"after {n} tokens" for n in result.lengths))
    return "".join([heading("Writing, per token"), paragraph(intro, "note"), figures, table(columns, _rates(result))])


def load(result: Result) -> str:
    """Size, load time and memory."""
    intro = (
        "Load time is from opening the files to being ready, the check of their hashes included. Memory is the peak of "
        "a fresh process that loads one artifact and runs every length, and what of it is above its imports."
    )
    columns = ("artifact", "size MB", "of fp32", "load ms", "of it hashes", "peak MB", "above imports MB", "run in")
    sizes = bars("Size on disk", [Bar(i, size / 1e6) for i, size in result.sizes.items()], "MB")
    memory = bars("Peak memory above the imports", [_memory(*item) for item in result.measurements.items()], "MB")
    rows = (_load_row(artifact_id, result) for artifact_id in result.measurements)
    parts = [heading("Size, loading, memory"), paragraph(intro, "note"), charts([sizes, memory])]
    return "".join([*parts, table(columns, rows)])


def ceiling(result: Result) -> str:
    """What the arithmetic and the memory of this machine allow at best."""
    rates = result.ceiling
    intro = (
        f"Measured first, in a process of its own: this machine reads {_rate(rates.read_gbps)} GB/s and multiplies "
        f"float32 matrices at {_rate(rates.float32_gflops)} G operations/s. One pass of {result.tokens} tokens must do "
        'the operations below and read the weights once, so it cannot be faster than the time under "at best". '
        "How fast this machine multiplies integers is not measured: for int8 only memory and attention count, so "
        "how far it is from its best is not known."
    )
    columns = ("artifact", "G operations", "weights read MB", "in", "at best ms", "measured, times that")
    rows = (_ceiling_row(artifact_id, result) for artifact_id in result.costs)
    return heading("What this machine could do at best") + paragraph(intro, "note") + table(columns, rows)


def _medians(result: Result) -> Iterable[list[Cell]]:
    for artifact_id, measurement in result.measurements.items():
        if measurement.status == "measured":
            times = (f"{short(measurement.latency[length].p50_ms)} ms" for length in result.lengths)
            yield [Cell(artifact_id, "id"), *(Cell(text, "n") for text in times)]
        else:
            yield [Cell(artifact_id, "id"), _refused(measurement, len(result.lengths))]


def _rates(result: Result) -> Iterable[list[Cell]]:
    for artifact_id, measurement in result.measurements.items():
        if measurement.status != "measured":
            yield [Cell(artifact_id, "id"), _refused(measurement, len(result.lengths))]
            continue
        found = (measurement.steps[length] for length in result.lengths)
        texts = (f"{short(x.p50_ms)} ms, {x.tokens_per_second:,.0f} tokens/s" for x in found)
        yield [Cell(artifact_id, "id"), *(Cell(text, "n") for text in texts)]


def _bars(result: Result, length: int, what: Literal["latency", "steps"]) -> Iterable[Bar]:
    for artifact_id, measurement in result.measurements.items():
        found = (measurement.latency if what == "latency" else measurement.steps).get(length)
        if found is None:
            yield Bar(artifact_id, note=measurement.status.replace("_", " "))
        else:
            yield Bar(artifact_id, found.p50_ms, found.p90_ms)


def _memory(artifact_id: str, measurement: Measurement) -> Bar:
    above = measurement.above_imports_bytes
    note = "not measured here" if measurement.status == "measured" else measurement.status.replace("_", " ")
    return Bar(artifact_id, note=note) if above is None else Bar(artifact_id, above / 1e6)


def _latency_rows(artifact_id: str, measurement: Measurement) -> Iterable[list[Cell]]:
    if measurement.status != "measured":
        yield [Cell(artifact_id, "id"), _refused(measurement, 7)]
    for i, (length, found) in enumerate(measurement.latency.items()):
        yield [Cell("" if i else artifact_id, "id"), *_latency_cells(length, found)]


def _latency_cells(length: int, found: Latency) -> list[Cell]:
    times = (short(found.p50_ms), short(found.p90_ms), short(found.p99_ms))
    padded = "–" if found.padded_to is None else str(found.padded_to)
    texts = (str(length), *times, f"{found.tokens_per_second:,.0f}", str(found.runs), padded)
    return [Cell(text, "n") for text in texts]


def _load_row(artifact_id: str, result: Result) -> list[Cell]:
    measurement = result.measurements[artifact_id]
    first = [
        Cell(artifact_id, "id"),
        Cell(_megabytes(result.sizes[artifact_id]), "n"),
        _share(artifact_id, result.sizes),
    ]
    if measurement.status != "measured":
        return [*first, _refused(measurement, 5)]
    times = (measurement.load_ms, measurement.check_ms)
    memory = (measurement.peak_bytes, measurement.above_imports_bytes)
    cells = [_NONE if value is None else Cell(short(value), "n") for value in times]
    cells += [_NONE if value is None else Cell(f"{value / 1e6:,.0f}", "n") for value in memory]
    return [*first, *cells, Cell(measurement.runtime or "–")]


def _share(artifact_id: str, sizes: Mapping[str, int]) -> Cell:
    """Of the fp32 artifact of the same format, where there is one."""
    whole = sizes.get(f"{artifact_id.split('/')[0]}/fp32")
    return _NONE if not whole else Cell(f"{sizes[artifact_id] / whole:.3f}", "n")


def _ceiling_row(artifact_id: str, result: Result) -> list[Cell]:
    cost = result.costs[artifact_id]
    best = result.ceiling.best_ms(cost)
    measured = result.measurements[artifact_id].latency.get(result.tokens)
    figures = (f"{cost.operations / 1e9:.2f}", f"{cost.weight_bytes / 1e6:.1f}")
    cells = [Cell(artifact_id, "id"), *(Cell(text, "n") for text in figures), Cell(cost.arithmetic)]
    cells.append(_NONE if best is None else Cell(short(best), "n"))
    if best is None or measured is None or cost.arithmetic == "int8":
        return [*cells, _NONE]
    return [*cells, Cell(f"{measured.p50_ms / best:.1f}", "n")]


def _refused(measurement: Measurement, span: int) -> Cell:
    """The reason stands in the box on top."""
    return Cell(measurement.status.replace("_", " "), measurement.status, span)


def _rate(value: float | None) -> str:
    return "(not measured)" if value is None else short(value)


def _megabytes(value: int) -> str:
    return f"{value / 1e6:.1f}"
