"""Models in memory, as `exporters.pipeline` asks: trace, ask for answers, quantize, write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path

from exporters.architectures.traced import Traced, holding
from exporters.memory import release
from exporters.modules.spec import TASK, ModuleSpec, is_keras
from exporters.packaging import describe_artifact, save_manifest
from exporters.progress import Watch
from exporters.quantization.traced import held_values, to_int8
from exporters.sources.module import ModuleSource
from exporters.verification.probes_tensors import make_probes
from exporters.verification.rows import Row
from exporters.verification.tensors import check_tensors, read_golden
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.bundle.golden_tensors import GoldenTensors
from mobile_llm.bundle.manifest import Origin, TaskInfo


def write(spec: ModuleSpec, folder: Path, watch: Watch) -> dict[str, Artifact]:
    """Everything but what is attested."""
    watch("tracing the model")
    source = open_module(spec)
    probes, inputs = make_probes(source.traced, source.examples)
    watch("asking the model for reference answers")
    answers = {"reference": tuple(source.answer(tensors) for tensors in inputs)}
    artifacts = {}
    for recipe, ids in groupby(_ids(spec), key=lambda artifact_id: artifact_id.split("/")[1]):
        with quantized(source.traced, recipe) as traced:
            if traced.integers:
                twin = tuple(traced.run(tensors) for tensors in inputs)
            for artifact_id in ids:
                watch(f"writing {artifact_id}")
                artifacts[artifact_id] = write_artifact(traced, artifact_id, folder)
                if traced.integers:
                    answers[artifact_id] = twin
    GoldenTensors(probes, inputs, answers).write(folder)
    origin = Origin(source.id, source.architecture, source.weights_sha256, parameters=source.parameters)
    save_manifest(origin, TaskInfo(TASK), None, artifacts, folder)
    return artifacts


def check(bundle: Bundle, watch: Watch) -> list[Row]:
    """Every artifact beside the golden tensors."""
    return check_tensors(bundle, read_golden(bundle), lambda what: watch(f"comparing {what}"))


def open_module(spec: ModuleSpec) -> ModuleSource:
    """The source of a spec's model: one route for torch, one for Keras."""
    if is_keras(spec.model):
        from exporters.sources.keras_model import open_keras

        return open_keras(spec.model, spec.example_inputs)
    from exporters.sources.module import open_torch

    return open_torch(spec.model, spec.example_inputs)


@contextmanager
def quantized(traced: Traced, recipe: str) -> Iterator[Traced]:
    """The program of a recipe; while the block runs it holds the values that the recipe leaves of its weights."""
    chosen = to_int8(traced) if recipe == "int8" else traced
    with holding(chosen.program, held_values(chosen)):
        yield chosen


def write_artifact(traced: Traced, artifact_id: str, folder: Path) -> Artifact:
    """One artifact below `folder`."""
    format_name, precision = artifact_id.split("/")
    lowered = import_module(f"exporters.formats.{format_name}.traced").lower(traced, precision, folder)
    release()
    return describe_artifact(folder, artifact_id, lowered)


def _ids(spec: ModuleSpec) -> list[str]:
    return [f"{name}/{recipe}" for recipe in spec.recipes for name in spec.formats]
