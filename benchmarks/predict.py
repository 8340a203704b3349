"""A first estimate for a phone nobody has measured: the roofline of its CPU, from data sheets only.

Covered: latency of one pass on the four fastest CPU cores, and whether the memory is likely to suffice. Every figure
has the grade "spec-only": no measurement of the device or of the model went in. Not covered: GPU and NPU (which op they
take must be known first), heat, other apps, time outside of products. The interval says how far the assumptions reach;
how often the truth lies inside it has not been measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from benchmarks.cost import Cost
from benchmarks.devices import Device

GRADE = "spec-only"
THREADS = 4
# Shares of the peak that products reached in published encoders on four Arm cores: float32 MobileBERT on a Snapdragon
# 855 .57, float32 ViT on a QCS6490 .60, int8 ViT .13 (QCS6490) and .42 (Snapdragon 7 Gen 4) of the dot-product peak.
# The low ends leave room for kernels that were not tuned for a core.
_FLOAT_SHARE = (0.15, 0.6)
_INT8_SHARE = (0.1, 0.6)
# Shares of the memory's peak bandwidth seen in language models decoding on phones: 10 to 76 %.
_BANDWIDTH_SHARE = (0.1, 0.76)
# At least the file as stored; at most three times that: the file, a copy that the runtime unpacks or packs, buffers.
_MEMORY_TIMES = (1.0, 3.0)
_RUNTIME_BYTES = 30_000_000
# What a system leaves to one app differs by version and is not published: half of the least memory is taken.
_APP_SHARE = 0.5


@dataclass(frozen=True)
class Prediction:
    """Latency in milliseconds (geometric middle and interval), memory in bytes. `fits` is None where it depends.
    `bound` is what limits the middle estimate: "compute" or "memory"."""

    device: str
    artifact: str
    tokens: int
    latency_ms: float
    low_ms: float
    high_ms: float
    memory_bytes: tuple[int, int]
    fits: bool | None
    bound: str
    grade: str
    why: str


def predict(name: str, device: Device, artifact: str, cost: Cost) -> Prediction:
    """One pass of `cost.tokens` tokens in an artifact on a device."""
    shares = _INT8_SHARE if cost.arithmetic == "int8" else _FLOAT_SHARE
    slow = _roofline(device, cost, shares[0], _BANDWIDTH_SHARE[0])
    fast = _roofline(device, cost, shares[1], _BANDWIDTH_SHARE[1])
    low, high = max(fast), max(slow)
    memory = tuple(round(times * cost.file_bytes) + _RUNTIME_BYTES for times in _MEMORY_TIMES)
    compute, reading = (sqrt(a * b) for a, b in zip(slow, fast))
    return Prediction(
        device=name,
        artifact=artifact,
        tokens=cost.tokens,
        latency_ms=sqrt(low * high),
        low_ms=low,
        high_ms=high,
        memory_bytes=(memory[0], memory[1]),
        fits=_fits(device, memory[0], memory[1]),
        bound="compute" if compute >= reading else "memory",
        grade=GRADE,
        why=_why(device, cost, shares),
    )


def runs_on(device: Device, format_name: str) -> bool:
    """Core ML exists on Apple systems only; ONNX Runtime and LiteRT on both."""
    return format_name != "coreml" or device.os == "ios"


def _roofline(device: Device, cost: Cost, share: float, bandwidth_share: float) -> tuple[float, float]:
    """(milliseconds of computing, milliseconds of reading weights)"""
    linear = cost.linear / device.peak_gops(cost.arithmetic, THREADS)
    # Attention multiplies two computed values, which every one of our formats keeps in floating point.
    floating = "float32" if cost.arithmetic == "int8" else cost.arithmetic
    attention = cost.attention / device.peak_gops(floating, THREADS)
    reading = cost.weight_bytes / (device.peak_bandwidth_gbps * bandwidth_share)
    return (linear + attention) / share / 1e6, reading / 1e6


def _fits(device: Device, low: int, high: int) -> bool | None:
    allowed = device.ram_gb[0] * 1e9 * _APP_SHARE
    return True if high <= allowed else False if low > allowed else None


def _why(device: Device, cost: Cost, shares: tuple[float, float]) -> str:
    peak = device.peak_gops(cost.arithmetic, THREADS)
    words = (
        f"{cost.operations / 1e9:.2f} G operations at {shares[0]:.0%} to {shares[1]:.0%} of {peak:.0f} G/s "
        f"({cost.arithmetic}, {THREADS} fastest cores), {cost.weight_bytes / 1e6:.1f} MB of weights at "
        f"{_BANDWIDTH_SHARE[0]:.0%} to {_BANDWIDTH_SHARE[1]:.0%} of {device.peak_bandwidth_gbps:g} GB/s"
    )
    return words + ("; Apple's matrix unit and Neural Engine are left out" if device.os == "ios" else "")
