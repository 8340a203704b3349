"""The manifest's bindings against what an artifact's file declares of itself.

A name, type or shape that does not fit is refused when the artifact is opened, and not left to what a runtime makes
of it at the first text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mobile_llm.artifacts.graph import ArtifactGraph, Dimension, Function, Tensor
from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding
from mobile_llm.errors import IntegrityFailed

# What a runtime takes where an entry point names no signature; ONNX has a single graph, whatever its name.
_UNNAMED = {"tflite": "serving_default", "coreml": "main"}


def check_bindings(artifact: Artifact, graph: ArtifactGraph) -> None:
    """Raises IntegrityFailed for the first entry point that `graph` does not have as the manifest describes it."""
    for role, entries in artifact.entry_points.items():
        for entry in entries:
            _check_entry(entry, _function(graph, entry), f"{artifact.path}, {entry.signature or role}")


def _function(graph: ArtifactGraph, entry: EntryPoint) -> Function | None:
    name = entry.signature or _UNNAMED.get(graph.format)
    return graph.functions.get(name) if name else next(iter(graph.functions.values()), None)


def _check_entry(entry: EntryPoint, function: Function | None, where: str) -> None:
    if function is None:
        raise _misfit(where, "there is no such entry in the file")
    inputs, outputs = _declared(function, function.inputs), _declared(function, function.outputs)
    optional = _declared(function, function.overridable)
    bound = {binding.name for binding in entry.inputs.values()}
    unbound = set(inputs) ^ (bound - set(optional))
    if unbound or not inputs:
        raise _misfit(where, f"the file takes {', '.join(inputs)}")
    for binding in entry.inputs.values():
        _check_tensor(binding, {**inputs, **optional}[binding.name], where)
    for binding in entry.outputs.values():
        if binding.name not in outputs:
            raise _misfit(where, f"the file has no output {binding.name!r}, it gives {', '.join(outputs)}")
        # Sizes that the file states hold as long as none of its constants is replaced.
        declared = replace(outputs[binding.name], shape=None) if bound & set(optional) else outputs[binding.name]
        _check_tensor(binding, declared, where)


def _declared(function: Function, names: tuple[str, ...]) -> Mapping[str, Tensor]:
    """Tensors by the names that a caller uses."""
    return {function.signature.get(name, name): function.tensors[name] for name in names}


def _check_tensor(binding: TensorBinding, declared: Tensor, where: str) -> None:
    if declared.dtype not in (binding.dtype, "?"):
        raise _misfit(where, f"{binding.name} is {declared.dtype} in the file, not {binding.dtype}")
    if declared.shape is not None and not _fits(binding.shape, declared.shape):
        raise _misfit(where, f"{binding.name} has the shape {declared.shape} in the file, not {binding.shape}")


def _fits(bound: tuple[Dimension, ...], declared: tuple[Dimension, ...]) -> bool:
    """A size that the file fixes has to be the manifest's; what it leaves open may be anything."""
    return len(bound) == len(declared) and all(d == b for b, d in zip(bound, declared) if isinstance(d, int))


def _misfit(where: str, what: str) -> IntegrityFailed:
    return IntegrityFailed(f"the manifest does not describe {where}: {what}; export the bundle again")
