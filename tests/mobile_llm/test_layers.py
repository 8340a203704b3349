"""Bindings that are alike in every layer are written once, and read as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mobile_llm.bundle.layers import folded, unfolded
from mobile_llm.bundle.manifest import Artifact, EntryPoint, KvCache, TensorBinding
from mobile_llm.errors import IntegrityFailed

LAYERS = 12


def artifact(inputs: dict[str, TensorBinding]) -> Artifact:
    ids = TensorBinding("tokens_1", "int32", (1, 1))
    entry = EntryPoint({"input_ids": ids, **inputs}, {"logits": ids, **inputs}, "decode_1")
    return Artifact("tflite", "fp32", "a", (), {"decode": (entry,)}, cache=KvCache("rows", LAYERS, 1, 4, "int8", 8))


def bindings(name: str, layers: int = LAYERS) -> dict[str, TensorBinding]:
    return {
        f"key.{n}": TensorBinding(name.replace("{}", str(n)), "int8", (1, "past"), {"past": (0, 8)})
        for n in range(layers)
    }


@pytest.mark.parametrize("name", ["k_{}", "past_1.{}.key_11", "{}", "layer11.{}.{}"])
def test_what_is_alike_stands_there_once(name: str) -> None:
    whole = artifact(bindings(name))
    written = folded(whole)
    (entry,) = written.entry_points["decode"]
    if "11" not in name:
        assert list(entry.inputs) == ["input_ids", "key.*"]
        assert entry.inputs["key.*"].name == name.replace("{}", "*")
    assert unfolded(written) == whole


def test_what_differs_stands_there_by_itself() -> None:
    several = bindings("k_{}")
    for changed in (
        several | {"key.3": replace(several["key.3"], dtype="float32")},
        several | {"key.3": replace(several["key.3"], name="other")},
        bindings("k_{}", LAYERS - 1),
        bindings("k_{}") | {"key.12": several["key.3"]},
    ):
        assert unfolded(folded(artifact(changed))) == artifact(changed)


def test_more_layers_than_a_model_has_are_refused() -> None:
    whole = folded(artifact(bindings("k_{}")))
    assert whole.cache is not None
    many = replace(whole, cache=replace(whole.cache, layers=10**9))
    with pytest.raises(IntegrityFailed, match="a cache of 1000000000 layers"):
        unfolded(many)
