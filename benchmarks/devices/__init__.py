"""Phones as data: one TOML file each, named as the device is asked for, every figure with its source beside it.

Covered: what a first estimate needs (clusters, instructions, memory). Not covered: GPUs and NPUs beyond their names,
thermal limits, what the system leaves of the memory to one app.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from mobile_llm.bundle.codec import from_json
from mobile_llm.errors import InvalidInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CORES = "cores"
# Multiply-accumulates of one 128-bit dot product of bytes over one of float32; of float16 over float32.
_DOTPROD_GAIN, _FLOAT16_GAIN = 4, 2


@dataclass(frozen=True)
class Cluster:
    """Equal cores."""

    count: int
    core: str
    ghz: float


@dataclass(frozen=True)
class Device:
    """A phone (or a class of them); `clusters` fastest first, `ram_gb` least and most."""

    name: str
    tier: str
    os: str
    soc: str
    year: int
    ram_gb: tuple[int, int]
    peak_bandwidth_gbps: float
    dotprod: bool
    i8mm: bool
    fp16: bool
    npu: str
    confidence: str
    source: str
    note: str
    clusters: tuple[Cluster, ...]

    def peak_gops(self, arithmetic: str, threads: int) -> float:
        """10^9 operations a second of the `threads` fastest cores, each busy in every cycle.

        i8mm would double int8 once more; not every kernel uses it, so it is not counted.
        """
        left, rate = threads, 0.0
        for cluster in self.clusters:
            used = min(left, cluster.count)
            rate += used * cluster.ghz * _per_cycle(cluster.core)
            left -= used
        if arithmetic == "int8":
            return rate * (_DOTPROD_GAIN if self.dotprod else 1)
        return rate * (_FLOAT16_GAIN if arithmetic == "float16" and self.fp16 else 1)


def names() -> list[str]:
    """The names that `load` takes, from the smallest peak to the largest."""
    stems = [path.name.removesuffix(".toml") for path in files(__name__).iterdir() if path.name.endswith(".toml")]
    return sorted((s for s in stems if s != _CORES), key=lambda stem: load(stem).peak_gops("float32", 4))


@cache
def load(name: str) -> Device:
    """Raises InvalidInput, listing the names, for a device that is unknown."""
    path = files(__name__).joinpath(f"{name}.toml")
    if name == _CORES or "/" in name or "\\" in name or not path.is_file():
        raise InvalidInput(f"no device {name!r}; known are {', '.join(names())}, or all")
    return from_json(Device, tomllib.loads(path.read_text(encoding="utf-8")), f"devices/{name}.toml")


def select(names_asked: Sequence[str]) -> dict[str, Device]:
    """Devices by name; "all" stands for every one."""
    chosen = names() if "all" in names_asked else list(dict.fromkeys(names_asked))
    return {name: load(name) for name in chosen}


@cache
def _cores() -> dict[str, Any]:
    text = files(__name__).joinpath(f"{_CORES}.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["float32_operations_per_cycle"]
    return table


def _per_cycle(core: str) -> int:
    if core not in _cores():
        raise InvalidInput(f"devices/{_CORES}.toml has no core {core!r}; add it with its operations per cycle")
    return int(_cores()[core])
