"""Bindings that are alike in every layer, written once: `key.*` in manifest.json is `key.0`, `key.1` and so on.

The `*` of the role and of the physical name stands for the layer's number, up to the `layers` of the artifact's cache.
What is not alike stands there by itself. In memory manifests have every binding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding
from mobile_llm.errors import IntegrityFailed

_ANY = "*"
_MOST_LAYERS = 10_000
_Bindings = Mapping[str, TensorBinding]


def folded(artifact: Artifact) -> Artifact:
    """As it is written."""
    return _changed(artifact, _fold)


def unfolded(artifact: Artifact) -> Artifact:
    """As it is meant. Raises IntegrityFailed for more layers than a model has."""
    if artifact.cache and artifact.cache.layers > _MOST_LAYERS:
        raise IntegrityFailed(f"{artifact.path} has a cache of {artifact.cache.layers} layers; fetch the bundle again")
    return _changed(artifact, _unfold)


def _changed(artifact: Artifact, change: Callable[[_Bindings, int], _Bindings]) -> Artifact:
    if artifact.cache is None:
        return artifact
    layers = artifact.cache.layers
    entries = {
        role: tuple(
            EntryPoint(change(entry.inputs, layers), change(entry.outputs, layers), entry.signature)
            for entry in several
        )
        for role, several in artifact.entry_points.items()
    }
    return replace(artifact, entry_points=entries)


def _fold(bindings: _Bindings, layers: int) -> _Bindings:
    found = dict(bindings)
    for kind in dict.fromkeys(role.removesuffix(".0") for role in bindings if role.endswith(".0")):
        last = bindings.get(f"{kind}.{layers - 1}")
        if last is None:
            continue
        pattern = {f"{kind}.{_ANY}": _pattern(last, layers - 1)}
        alike = _unfold(pattern, layers)
        if alike.items() <= bindings.items():
            found = {role: binding for role, binding in found.items() if role not in alike} | pattern
    return found


def _pattern(binding: TensorBinding, layer: int) -> TensorBinding:
    """The binding with its layer's number, wherever it stands by itself in the name, left open."""
    return replace(binding, name=re.sub(rf"(?<!\d){layer}(?!\d)", _ANY, binding.name))


def _unfold(bindings: _Bindings, layers: int) -> _Bindings:
    found: dict[str, TensorBinding] = {}
    for role, binding in bindings.items():
        if not role.endswith(f".{_ANY}"):
            found[role] = binding
            continue
        for layer in map(str, range(layers)):
            name = binding.name.replace(_ANY, layer)
            found[role.replace(_ANY, layer)] = TensorBinding(name, binding.dtype, binding.shape, binding.range)
    return found
