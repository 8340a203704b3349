"""A benchmark of a bundle that took no time: figures are made up, artifacts and costs are the bundle's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import devices
from benchmarks.ceiling import Ceiling
from benchmarks.cost import artifact_cost
from benchmarks.measure import Latency, Measurement
from benchmarks.predict import predict, runs_on
from benchmarks.result import Result
from mobile_llm.bundle import Bundle

LENGTHS, TOKENS = (16, 64), 64
HOST = {"system": "Linux x86_64", "cpu": "a <fast> processor", "cores": 2, "python": "3.11.0"}


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """A result for a bundle; Core ML is not checked. `phones` are predicted for."""

    def make(folder: Path, phones: tuple[str, ...] = (), **measurements: Measurement) -> Result:
        bundle = Bundle.open(folder)
        ids = list(bundle.manifest.artifacts)
        costs = {name: artifact_cost(bundle, name, TOKENS) for name in ids}
        chosen = devices.select(phones)
        return Result(
            bundle=bundle.folder.name,
            host=HOST,
            threads=2,
            rounds=3,
            lengths=LENGTHS,
            tokens=TOKENS,
            ceiling=Ceiling(2, 20.0, 150.0),
            sizes={name: bundle.manifest.artifacts[name].size for name in ids},
            costs=costs,
            measurements={name: _made_up(name, i) for i, name in enumerate(ids)} | measurements,
            predictions=tuple(
                predict(phone, device, name, cost)
                for phone, device in chosen.items()
                for name, cost in costs.items()
                if runs_on(device, name.split("/")[0])
            ),
        )

    return make


def _made_up(artifact_id: str, turn: int) -> Measurement:
    if artifact_id.startswith("coreml"):
        return Measurement("not_checked", "Core ML runs on Apple systems only")
    latency = {n: Latency(60, 0.1 * n + turn, 0.11 * n + turn, 0.2 * n + turn, 1000 / 0.1) for n in LENGTHS}
    memory: dict[str, Any] = {"peak_bytes": 90_000_000, "above_imports_bytes": 12_000_000}
    return Measurement("measured", "", "a runtime 1.0", 25.5, 5.5, latency, **memory)
