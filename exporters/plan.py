"""Before anything heavy: what an export will write and take, and a refusal of what cannot fit.

It reads config.json and the headers of the weights, and imports nothing heavy.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporters.appetite import (
    DECODER,
    ENCODER,
    Shape,
    artifact_bytes,
    calibrating_seconds,
    imports_bytes,
    peak_bytes,
    seconds,
)
from exporters.sources.found import find_model
from exporters.sources.headers import Sizes, count_sizes
from exporters.spec import GENERATION, ExportSpec
from exporters.staging import refuse_taken
from mobile_llm.errors import NotEnoughMemory
from mobile_llm.machine import available_memory, free_disk, resident_memory

_COMPARED = 512  # tokens, at most
_SMALL_FILES = 2_000_000  # golden references, manifest, card; the tokenizer's files are counted


@dataclass(frozen=True)
class Plan:
    """Predictions in bytes, beside what this machine has (None: unknown).

    `peak` is of the whole process tree, `above_imports` the part above the interpreter with its imports; `peak_step` is
    where it falls. `scratch` is needed in the folder for temporary files, `disk` at the output.
    """

    artifacts: dict[str, int]
    parameters: int
    peak: int
    above_imports: int
    peak_step: str
    disk: int
    scratch: int
    minutes: float
    memory_available: int | None
    disk_free: int
    scratch_free: int
    same_disk: bool
    max_size: float | None = None
    max_kl: float | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def refuse_what_cannot_fit(self) -> None:
        """Raises NotEnoughMemory, with the figures and the next step."""
        if self.memory_available is not None and self.peak - resident_memory() > self.memory_available:
            raise NotEnoughMemory(
                f"this export would take {_mb(self.peak)} of memory at its peak ({self.peak_step}), and "
                f"{_mb(self.memory_available)} are free; close other programs, ask for fewer formats or recipes, or "
                "use a machine with more memory"
            )
        needed = self.disk + (self.scratch if self.same_disk else 0)
        if needed > self.disk_free:
            raise NotEnoughMemory(
                f"this export would take {_mb(needed)} of disk, and {_mb(self.disk_free)} are free where the bundle "
                "goes; free some room, or choose another output"
            )
        if not self.same_disk and self.scratch > self.scratch_free:
            raise NotEnoughMemory(
                f"this export would take {_mb(self.scratch)} for temporary files, and {_mb(self.scratch_free)} are "
                f"free in {tempfile.gettempdir()}; free some room, or set TMPDIR to another folder"
            )

    def lines(self) -> Iterator[str]:
        """For people."""
        listed = ", ".join(f"{name} {_mb(size)}" for name, size in self.artifacts.items())
        yield f"plan: {self.parameters / 1e6:.1f} million parameters -> {listed}"
        if self.max_size is not None:
            yield f"      int4: files of at most {self.max_size:g} MB, measured before and after calibration"
        if self.max_kl is not None:
            yield f"      int4: at most so large, with layers in 8 bits until 4 cost the others {self.max_kl:g} nats"
        free = "unknown" if self.memory_available is None else _mb(self.memory_available)
        yield (
            f"      memory: peak about {_mb(self.peak)} ({_mb(self.above_imports)} above the imports, "
            f"{self.peak_step}); free: {free}"
        )
        yield f"      disk: {_mb(self.disk)}, and {_mb(self.scratch)} for a while; free: {_mb(self.disk_free)}"
        yield f"      time: about {max(1, round(self.minutes))} minutes on one core"


def make_plan(spec: ExportSpec) -> Plan:
    """Raises OutputExists, ModelNotFound, InvalidInput, UnsupportedModel; a hub id is downloaded first."""
    refuse_taken(spec.output, spec.force)
    found = find_model(spec.model, spec.task, spec.adapters)
    sizes, shape = count_sizes(found.shapes, spec.task), _shape(found.config)
    names = spec.artifact_ids
    writes = spec.task == GENERATION
    second = find_spec("tensorflow") is not None and not writes
    peak, step = peak_bytes(sizes, shape, names, second, DECODER if writes else ENCODER)
    largest = spec.max_size if spec.max_kl is None else math.inf
    artifacts = {name: artifact_bytes(sizes, name, largest) for name in names}
    if spec.text_input:
        taking_ids = [name for name in names if name.startswith("onnx/")]
        artifacts |= {f"{name}-text": artifacts[name] + 2 * found.tokenizer_bytes for name in taking_ids}
    place, scratch = spec.output.absolute().parent, Path(tempfile.gettempdir())
    return Plan(
        artifacts,
        sizes.exported,
        peak,
        peak - imports_bytes(spec.formats, second),
        step,
        disk=sum(artifacts.values()) + _SMALL_FILES + found.tokenizer_bytes,
        scratch=_scratch(sizes, names),
        minutes=(seconds(sizes, names) + (calibrating_seconds(sizes) if spec.calibration else 0)) / 60,
        memory_available=available_memory(),
        disk_free=free_disk(place),
        scratch_free=shutil.disk_usage(scratch).free,
        same_disk=_device(place) == _device(scratch),
        max_size=spec.max_size,
        max_kl=spec.max_kl,
    )


def _shape(config: dict[str, Any]) -> Shape:
    """Names differ from one model_type to the next."""

    def first(names: tuple[str, ...], otherwise: int) -> int:
        return next((config[name] for name in names if isinstance(config.get(name), int)), otherwise)

    # What models that write are compared on is shorter than what most encoders take.
    longest = min(first(("max_position_embeddings",), 512), _COMPARED)
    hidden = first(("hidden_size", "dim"), 768)
    heads = first(("num_attention_heads", "n_heads"), 12)
    inner = first(("intermediate_size", "hidden_dim"), 4 * hidden)
    return Shape(longest, heads, inner)


def _scratch(sizes: Sizes, names: list[str]) -> int:
    """Exact views are written to be opened, one at a time; coremltools gathers its weights before it saves them; what
    is packed in a LiteRT-LM file is written apart."""
    apart = ("coreml/", "litertlm/")
    return 4 * sizes.exported if any(n.startswith(apart) or not n.endswith("/fp32") for n in names) else 0


def _device(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return place.stat().st_dev


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
