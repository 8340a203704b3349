"""verification.json as a page shows it: what the export attested, artifact by artifact, nearest to its limit first.

The benchmarks do not import the exporters, so the file is read by its form. One that is missing or has another form is
no error, since the bundle still runs: it is said loudly instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.page.markup import Cell, fold, heading, paragraph, table
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.codec import from_json
from mobile_llm.errors import InvalidInput

_FILE = "verification.json"
_ORDER = {"passed": 0, "not_checked": 1, "failed": 2}
_RUNTIMES = {"ai-edge-litert": "LiteRT", "tensorflow": "TensorFlow", "mobile-llm": "MIL evaluator"}


@dataclass(frozen=True)
class Comparison:
    """A row of the file."""

    artifact: str
    entry_point: str
    metric: str
    value: float | None
    limit: float | None
    status: str
    reason: str
    where: str

    @property
    def runtime(self) -> str:
        """Who ran it, or that arithmetic was made exact for it."""
        backend, _, rest = self.where.partition(" (")
        if backend.endswith("-exact"):
            return "float32 view"
        package = (rest or backend).split(" ")[0].rstrip(",)")
        return _RUNTIMES.get(package, package)

    @property
    def nearness(self) -> tuple[int, float]:
        """What failed first, then what was not checked, then how much of the limit is used up."""
        order = _ORDER.get(self.status, 2)
        if self.value is None or self.limit is None:
            return order, 0.0
        if self.limit > 0.5 and self.value <= 1.001:  # a cosine: the way down from one is what counts
            return order, (1 - self.value) / (1 - self.limit) if self.limit < 1 else 0.0
        return order, self.value / self.limit if self.limit else self.value


@dataclass(frozen=True)
class Attested:
    """`problem` says why there are no rows."""

    created: str = ""
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Comparison, ...] = ()
    problem: str = ""

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.rows)

    @property
    def failed(self) -> list[str]:
        """Sentences. A status that this version does not know counts as a failure."""
        known = ("passed", "not_checked")
        return [f"{row.artifact} {row.entry_point}: {_found(row)}" for row in self.rows if row.status not in known]

    @property
    def not_checked(self) -> list[str]:
        """Sentences, one for all artifacts that lack the same check for the same reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row.status == "not_checked":
                groups.setdefault((row.metric, row.reason), []).append(row.artifact)
        lines = [f"{_words(metric)} of {', '.join(dict.fromkeys(of))}: {why}" for (metric, why), of in groups.items()]
        return lines + ([self.problem] if self.problem else [])


def read_attested(bundle: Bundle) -> Attested:
    """What the bundle says was compared."""
    try:
        data = json.loads((bundle.folder / _FILE).read_text(encoding="utf-8"))
        return from_json(Attested, data, _FILE, ignore_unknown=True)
    except FileNotFoundError:
        return Attested(problem=f"the bundle has no {_FILE}: nothing says what it was compared with")
    except (InvalidInput, ValueError, OSError) as error:
        return Attested(problem=f"{_FILE} cannot be read, so nothing says what was compared: {error}")


def section(attested: Attested) -> str:
    """A line per artifact and runtime, every row in a fold."""
    if not attested.rows:
        return ""
    intro = (
        "Every artifact was run beside the PyTorch model before the bundle was written. Shown is the comparison that "
        "came nearest to its limit. A float32 view is the same file without the rounding that hides conversion errors."
    )
    columns = ("artifact", "run in", "nearest to its limit", "value", "limit", "checks")
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for row in attested.rows:
        groups.setdefault((row.artifact, row.runtime), []).append(row)
    lines = (_line(artifact, runtime, rows) for (artifact, runtime), rows in groups.items())
    parts = [heading("Compared with the model it came from"), paragraph(intro, "note"), table(columns, lines)]
    return "".join(
        [*parts, fold(f"All {len(attested.rows)} comparisons, each with the reason for its limit", _all(attested))]
    )


def _line(artifact: str, runtime: str, rows: list[Comparison]) -> list[Cell]:
    worst = max(rows, key=lambda row: row.nearness)
    values = (Cell(_number(worst.value), "n"), Cell(_number(worst.limit), "n"))
    return [
        Cell(artifact, "id"),
        Cell(runtime),
        Cell(_words(worst.metric)),
        *values,
        Cell(_counts(rows), _kind(worst.status)),
    ]


def _all(attested: Attested) -> str:
    columns = ("artifact", "entry point", "metric", "value", "limit", "status", "why this limit", "where")
    return table(columns, (_full(row) for row in attested.rows))


def _full(row: Comparison) -> list[Cell]:
    names = (Cell(row.artifact, "id"), Cell(row.entry_point), Cell(_words(row.metric)))
    values = (Cell(_number(row.value), "n"), Cell(_number(row.limit), "n"))
    return [
        *names,
        *values,
        Cell(_words(row.status), _kind(row.status)),
        Cell(row.reason, "long"),
        Cell(row.where, "long"),
    ]


def _counts(rows: Iterable[Comparison]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return ", ".join(f"{count} {_words(status)}" for status, count in counts.items())


def _found(row: Comparison) -> str:
    if row.value is None or row.limit is None:
        return f"{_words(row.metric)}: {row.reason}"
    return f"{_words(row.metric)} is {row.value:.6g}, the limit is {row.limit:.6g} ({row.reason})"


def _kind(status: str) -> str:
    return status if status in _ORDER else "failed"


def _words(status: str) -> str:
    return status.replace("_", " ")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}" if 0.9 < value < 1 else f"{value:.2g}"
