"""What a format hands back after writing an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobile_llm.bundle.manifest import EntryPoint

# Static entry points of the formats that need them; the runtime takes the smallest that fits.
STATIC_LENGTHS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Lowered:
    """A written artifact: `path` (file or package) relative to the bundle, how it is entered, and the oldest
    runtime and operating systems that open it, such as {"onnxruntime": "1.17", "ios": "16"}."""

    path: str
    entry_points: Mapping[str, tuple[EntryPoint, ...]]
    minimum: Mapping[str, str] = field(default_factory=dict)


def static_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths up to the model's limit, which is always among them."""
    return (*(length for length in STATIC_LENGTHS if length < max_length), max_length)
