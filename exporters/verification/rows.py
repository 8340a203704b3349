"""What was compared, with what result. A check that could not be made is a row too."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not_checked"]


@dataclass(frozen=True)
class Row:
    """One comparison: an artifact (or "bundle"), an entry point, a metric.

    `value` and `limit` are in the metric's unit; `reason` says why this limit, or why it was not checked;
    `where` names the runtime and the system.
    """

    artifact: str
    entry_point: str
    metric: str
    value: float | None
    limit: float | None
    status: Status
    reason: str
    where: str

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def not_checked(artifact: str, entry_point: str, metric: str, why: str) -> Row:
    return Row(artifact, entry_point, metric, None, None, "not_checked", why, here("nothing"))


def here(runtime: str) -> str:
    """Runtime and system of this machine."""
    return f"{runtime}, {platform.system()} {platform.machine()}"


def failures(rows: Iterable[Row], strict: bool) -> list[Row]:
    """The rows that forbid a bundle; with `strict` what was not checked forbids it too."""
    bad = ("failed", "not_checked") if strict else ("failed",)
    return [row for row in rows if row.status in bad]


def sentence(row: Row) -> str:
    """A row in words."""
    if row.status == "not_checked":
        return f"{row.artifact} {row.entry_point}: {row.metric} was not checked ({row.reason})"
    if row.value is None or row.limit is None:
        return f"{row.artifact} {row.entry_point}: {row.reason}"
    found = f"{row.metric} is {row.value:.6g}, the limit is {row.limit:.6g}"
    return f"{row.artifact} {row.entry_point}: {found} ({row.reason})"


def summary(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have each status."""
    return {s: sum(row.status == s for row in rows) for s in ("passed", "failed", "not_checked")}
