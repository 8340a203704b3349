"""Everything one benchmark found, as one value: for the terminal, the page and the JSON document alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.ceiling import Ceiling
from benchmarks.cost import Cost
from benchmarks.measure import Measurement
from benchmarks.predict import Prediction

# The length at which costs are stated and predictions made, or the longest below it that the model takes.
REFERENCE_TOKENS = 128


@dataclass(frozen=True)
class Result:
    """Keyed by artifact id, in the bundle's order. `costs` are at `tokens` tokens."""

    bundle: str
    host: Mapping[str, Any]
    threads: int
    rounds: int
    lengths: tuple[int, ...]
    tokens: int
    ceiling: Ceiling
    sizes: Mapping[str, int]
    costs: Mapping[str, Cost]
    measurements: Mapping[str, Measurement]
    predictions: tuple[Prediction, ...] = ()

    @property
    def not_checked(self) -> dict[str, str]:
        """What was not measured, and why."""
        return {i: m.reason for i, m in self.measurements.items() if m.status == "not_checked"}

    @property
    def failed(self) -> dict[str, str]:
        return {i: m.reason for i, m in self.measurements.items() if m.status == "failed"}

    def as_json(self) -> dict[str, Any]:
        """Plain data; null for what was not measured."""
        artifacts = {artifact_id: self._artifact(artifact_id) for artifact_id in self.measurements}
        return {
            "bundle": self.bundle,
            "host": dict(self.host),
            "threads": self.threads,
            "rounds": self.rounds,
            "lengths": list(self.lengths),
            "ceiling": asdict(self.ceiling),
            "artifacts": artifacts,
            "predictions": [asdict(prediction) for prediction in self.predictions],
        }

    def _artifact(self, artifact_id: str) -> dict[str, Any]:
        cost, measured = self.costs[artifact_id], asdict(self.measurements[artifact_id])
        measured["latency"] = {str(n): measured["latency"].get(n) for n in self.lengths}
        counted = {**asdict(cost), "operations": cost.operations, "best_ms": self.ceiling.best_ms(cost)}
        return {"size_bytes": self.sizes[artifact_id], "cost": counted, **measured}
