"""What a format hands back after writing an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporters.architectures.blocks import EncoderModel
from mobile_llm.bundle.manifest import EntryPoint, KvCache

# Static entry points of the formats that need them; the runtime takes the smallest that fits.
STATIC_LENGTHS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Lowered:
    """A written artifact: `path` (file or package) relative to the bundle, how it is entered, and the oldest
    runtime and operating systems that open it, such as {"onnxruntime": "1.17", "ios": "16"}; of a decoder its
    `cache`."""

    path: str
    entry_points: Mapping[str, tuple[EntryPoint, ...]]
    minimum: Mapping[str, str] = field(default_factory=dict)
    cache: KvCache | None = None


def static_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths up to the model's limit, which is always among them."""
    return (*(length for length in STATIC_LENGTHS if length < max_length), max_length)


def phone_outputs(model: EncoderModel) -> dict[str, tuple[int | str, ...]]:
    """The outputs of a batch of one, without the hidden states of every token, which an app has no use for."""
    kept = {name: shape for name, shape in model.outputs.items() if name != "last_hidden_state"}
    return {name: (1, *shape[1:]) for name, shape in kept.items()}


def static_outputs(model: EncoderModel, length: int) -> dict[str, tuple[int, ...]]:
    """The same at a fixed sequence length."""
    sizes = phone_outputs(model).items()
    return {name: tuple(size if isinstance(size, int) else length for size in shape) for name, shape in sizes}
