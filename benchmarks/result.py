"""Everything one benchmark found, as one value: for the terminal, the page and the JSON document alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.ceiling import Ceiling
from benchmarks.cost import Cost
from benchmarks.measure import Measurement
from benchmarks.predict import Prediction

# The length at which costs are stated and predictions made, or the longest below it that the model takes.
REFERENCE_TOKENS = 128


@dataclass(frozen=True)
class Result:
    """Keyed by artifact id, in the bundle's order. `costs` are at `tokens` tokens; `step_costs`, of artifacts that
    write, of one token more after them."""

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
    step_costs: Mapping[str, Cost] = field(default_factory=dict)

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
        measured = asdict(self.measurements[artifact_id])
        document = {"size_bytes": self.sizes[artifact_id], "cost": self._counted(self.costs[artifact_id]), **measured}
        document["latency"] = self._by_length(measured["latency"])
        if artifact_id in self.step_costs:
            step = {"step_cost": self._counted(self.step_costs[artifact_id])}
            return document | step | {"steps": self._by_length(measured["steps"])}
        del document["steps"]
        return document

    def _by_length(self, found: Mapping[int, Any]) -> dict[str, Any]:
        return {str(n): found.get(n) for n in self.lengths}

    def _counted(self, cost: Cost) -> dict[str, Any]:
        return {**asdict(cost), "operations": cost.operations, "best_ms": self.ceiling.best_ms(cost)}
