"""From what was recorded to what is said: medians, ratios within a round, and the claims that stand or fall by them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.peers.living import Contestant
from benchmarks.peers.race import Record


@dataclass(frozen=True)
class Figures:
    """One contestant: medians over rounds, means over windows; None where nothing was measured. Rates in tokens a
    second; `memory_bytes` is the peak above the interpreter with its imports, `kv_bytes` the part of it that is cache.
    `perplexity_error` is one standard error (delta method over windows)."""

    name: str
    ours: bool
    version: str
    size_bytes: int
    prefill: Mapping[int, float]
    decode: float | None
    load_ms: float | None
    first_ms: float | None
    memory_bytes: int | None
    kv_bytes: int | None
    perplexity: float | None
    perplexity_error: float | None
    divergence: float | None
    same: float | None
    failed: str = ""
    not_offered: str = ""

    @property
    def memory_less_kv(self) -> int | None:
        return None if self.memory_bytes is None else self.memory_bytes - (self.kv_bytes or 0)


@dataclass(frozen=True)
class Ratio:
    """Of two contestants' rates round by round: the median, and the middle half of the rounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Everything one run found."""

    host: Mapping[str, Any]
    settings: Mapping[str, Any]
    contestants: Mapping[str, Figures]
    records: Mapping[str, Record] = field(repr=False)
    missing: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data, each round's values with the medians."""
        contestants = {name: asdict(figures) for name, figures in self.contestants.items()}
        for name, plain in contestants.items():
            plain["rounds"] = asdict(self.records[name])
        head = {"host": dict(self.host), "settings": dict(self.settings)}
        return {**head, "contestants": contestants, "not_checked": dict(self.missing)}


def figures_of(contestant: Contestant, record: Record) -> Figures:
    loss = statistics.fmean(record.losses) if record.losses else None
    memory = _median(record.above_imports)
    return Figures(
        name=contestant.name,
        ours=contestant.ours,
        version=record.version,
        size_bytes=contestant.size_bytes,
        prefill={length: statistics.median(rates) for length, rates in record.prefill.items()},
        decode=_median(record.decode),
        load_ms=_median(record.load_ms),
        first_ms=_median(record.first_ms),
        memory_bytes=None if memory is None else int(memory),
        kv_bytes=record.kv_bytes,
        perplexity=None if loss is None else math.exp(loss),
        perplexity_error=_error(record.losses),
        divergence=statistics.fmean(record.divergences) if record.divergences else None,
        same=statistics.fmean(record.same) if record.same else None,
        failed=record.failed,
        not_offered=record.not_offered,
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Rates of the same rounds, in their order; None where either is missing a round."""
    if not ours or len(ours) != len(theirs):
        return None
    found = [a / b for a, b in zip(ours, theirs)]
    low, _, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    return Ratio(statistics.median(found), low, high)


def fastest(figures: Sequence[Figures], rate: Callable[[Figures], float | None]) -> Figures | None:
    """The one with the highest rate; None where none has any."""
    measured = [figure for figure in figures if rate(figure) is not None]
    return max(measured, key=lambda figure: rate(figure) or 0.0) if measured else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _error(losses: Sequence[float]) -> float | None:
    if len(losses) < 2:
        return None
    return math.exp(statistics.fmean(losses)) * statistics.stdev(losses) / math.sqrt(len(losses))
