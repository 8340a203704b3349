"""Decoders in TFLite: every architecture's logits at every position, however a text is read into the cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from exporters.architectures.blocks import Linear, map_blocks, weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight
from exporters.formats import tflite as lowering
from exporters.formats.lowered import Lowered
from exporters.formats.tflite import signatures
from exporters.quantization.integers import quantize_per_channel, to_float16
from exporters.verification.exact import tflite as exact
from mobile_llm.artifacts import tflite as reader
from mobile_llm.backends import tflite
from mobile_llm.backends.tflite_decoder import TfliteDecoder
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import IntegrityFailed, InvalidSpec, UnsupportedModel

from .conftest import DECODERS, VOCABULARY

CONTEXT = 48
IDS = np.random.default_rng(7).integers(3, VOCABULARY, 40)
# float32 sums in another order; logits are about 4
SAME = 3e-5


@pytest.fixture(autouse=True)
def _small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several caches and lengths of prefill within 48 tokens."""
    monkeypatch.setattr(signatures, "_SMALLEST_CACHE", 16)
    monkeypatch.setattr(signatures, "_CHUNKS", (4, 16))
    monkeypatch.setattr(signatures, "_VERIFIED", (4, 8))


@pytest.mark.parametrize("name", list(DECODERS))
def test_logits_are_the_models_at_every_position(name: str, decoder: Callable[[str], Any], tmp_path: Path) -> None:
    model = decoder(name)
    expected = logits_of(model)
    lowered = lowering.lower_decoder(describe_decoder(model), "fp32", tmp_path, CONTEXT)
    with opened(tmp_path, lowered) as found:
        assert np.abs(stepped(found) - expected).max() < SAME
        for read in (whole, chunked, taken_back):
            assert np.abs(read(found) - expected[-1]).max() < SAME, read.__name__
        for first in (0, 13):
            found.rewind(first)
            assert np.abs(found.score(IDS[first:].tolist()) - expected[first:]).max() < SAME


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("name", list(DECODERS))
def test_tokens_are_verified_as_steps_would_read_them(
    name: str, bits: int, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    """To the last bit, whatever lies in the cache behind what counts."""
    described = describe_decoder(decoder(name))
    precision = {32: "fp32", 8: "int8", 4: "int4"}[bits]
    lowered = lowering.lower_decoder(
        narrowed(described, bits) if bits < 32 else described, precision, tmp_path, CONTEXT
    )
    with opened(tmp_path, lowered) as found:
        for count, beginning in ((8, 6), (5, 2), (7, 13), (20, 20)):  # whole, padded, across caches
            found.rewind(0)
            found.append(IDS[:beginning].tolist())
            steps = np.stack([found.append([token]) for token in IDS[beginning : beginning + count].tolist()])
            after = found.append([5])
            found.rewind(beginning)
            found.append([3, 4, 5, 6])
            found.rewind(beginning)
            np.testing.assert_array_equal(found.score(IDS[beginning : beginning + count].tolist()), steps)
            np.testing.assert_array_equal(found.append([5]), after)


def test_the_manifest_says_what_there_is(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    lowered = lowering.lower_decoder(described, "fp32", tmp_path, CONTEXT)
    names = [entry.signature for role in ("decode", "prefill", "verify") for entry in lowered.entry_points[role]]
    prefills = [f"prefill_{rows}{cached}" for cached in ("", "_16", "_32", "_48") for rows in (4, 16)]
    verifying = [f"verify_{rows}_{cached}" for cached in (16, 32, 48) for rows in (4, 8)]
    assert names == ["decode_16", "decode_32", "decode_48", *prefills, *verifying]
    assert lowered.cache is not None
    assert (lowered.cache.kind, lowered.cache.layers, lowered.cache.context) == ("rows", 2, CONTEXT)
    smallest = lowered.entry_points["prefill"][0]
    assert {role: b.shape for role, b in smallest.inputs.items()} == {
        "input_ids": (1, 4),
        "position_ids": (1, 4),
        "last_row": (1,),
    }
    assert smallest.outputs["key.1"].shape == (1, 2, 8, 4)
    assert smallest.outputs["value.1"].shape == (1, 2, 4, 8)


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("name", list(DECODERS))
def test_xnnpack_takes_all_that_follows_the_lookups(
    name: str, bits: int, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    described = describe_decoder(decoder(name))
    described = described if bits == 32 else narrowed(described, bits)
    for shape in (signatures.Shape(1, 16), signatures.Shape(4, 0), signatures.Shape(4, 16, verifies=True)):
        path = tmp_path / f"{shape.signature}.tflite"
        lowering.write_decoder(described, path, (shape,), CONTEXT)
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        (taken,) = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
        assert {output["index"] for output in interpreter.get_output_details()} <= set(taken["outputs"])


def test_one_more_cache_costs_two_offsets_for_each_part(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    one, two = (signatures.Shape(4, 16),), (signatures.Shape(4, 16), signatures.Shape(4, 32))
    for name, shapes in (("one", one), ("two", two)):
        lowering.write_decoder(described, tmp_path / name, shapes, CONTEXT)
    model = schema.ModelT.InitFromPackedBuf((tmp_path / "two").read_bytes(), 0)
    first, second = (len(graph.tensors) + len(graph.operators) for graph in model.subgraphs)
    assert first == second
    tables_of_its_own = 1500  # the caches and what has their length, one layer's worth of shapes
    assert (tmp_path / "two").stat().st_size - (tmp_path / "one").stat().st_size < 4 * second + tables_of_its_own


def test_halves_are_widened_exactly(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    described = to_float16(describe_decoder(decoder("qwen2")))
    lowered = lowering.lower_decoder(described, "fp16", tmp_path, CONTEXT)
    with opened(tmp_path, lowered) as found:
        assert np.abs(stepped(found) - logits_of(holding(decoder("qwen2"), described))).max() < SAME


# Kernels round each layer's activations to 8 bits per row: relative to the deviation of the logits
ROUNDED = 0.05


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_integers_are_held_as_they_are(name: str, bits: int, decoder: Callable[[str], Any], tmp_path: Path) -> None:
    model = decoder(name)
    described = narrowed(describe_decoder(model), bits)
    expected = logits_of(holding(model, described))
    lowered = lowering.lower_decoder(described, f"int{bits}", tmp_path, CONTEXT)
    with opened(tmp_path, lowered, exact.open_decoder) as found:
        assert np.abs(stepped(found) - expected).max() < SAME
    with opened(tmp_path, lowered) as found:
        assert 0 < np.std(stepped(found) - expected) < ROUNDED * np.std(expected)
        assert np.std(whole(found) - expected[-1]) < ROUNDED * np.std(expected)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_weight_that_is_off_is_noticed(precision: str, decoder: Callable[[str], Any], tmp_path: Path) -> None:
    model = decoder("llama")
    described = describe_decoder(model) if precision == "fp32" else narrowed(describe_decoder(model), 8)
    name = described.layers[1].attention.value.weight.name
    wrong = map_blocks(described, lambda block: scaled(block, name, 1.05))
    lowered = lowering.lower_decoder(wrong, precision, tmp_path, CONTEXT)
    with opened(tmp_path, lowered, exact.open_decoder) as found:
        assert np.abs(stepped(found) - logits_of(holding(model, described))).max() > 100 * SAME


@pytest.mark.parametrize(
    ("kept", "together"),
    [("value", ["query + key", "value"]), ("key value", ["query", "key + value"]), ("key", ["query", "key", "value"])],
)
def test_layers_with_one_input_are_one_product_where_they_are_stored_alike(
    kept: str, together: list[str], decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    model = decoder("llama")
    described = narrowed(describe_decoder(model), 4)
    first = described.layers[0]
    parts = {part: getattr(first.attention, part) for part in ("query", "key", "value")}
    for part in kept.split():
        parts[part] = replace(parts[part], weight=in_bits(parts[part].weight, 8))
    mixed = replace(first, attention=replace(first.attention, **parts))
    described = replace(described, layers=(mixed, *described.layers[1:]))
    lowered = lowering.lower_decoder(described, "int4", tmp_path, CONTEXT)
    names = {part: linear.weight.name.removesuffix(".weight") for part, linear in parts.items()}
    wanted = ["+".join(names[part] for part in product.split(" + ")) + ".weight" for product in together]
    graph = next(iter(reader.read(tmp_path / lowered.path).functions.values()))
    products = [op.inputs[1].split(":")[1] for op in graph.ops if op.type == "FULLY_CONNECTED"]
    assert [name for name in products if any(part in name for part in names.values())] == wanted
    with opened(tmp_path, lowered, exact.open_decoder) as found:
        assert np.abs(stepped(found) - logits_of(holding(model, described))).max() < SAME


def test_blocks_that_no_kernel_takes_are_refused(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    small = map_blocks(
        described,
        lambda block: (
            replace(block, value=in_blocks(block.float32(), 16))
            if isinstance(block, Weight) and block.value.ndim == 2
            else block
        ),
    )
    with pytest.raises(UnsupportedModel, match="no 4-bit integers in blocks of 16; it has 8 bits per channel"):
        lowering.lower_decoder(small, "int4", tmp_path, CONTEXT)


def test_more_tokens_than_the_model_was_made_for_are_refused(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="a context of 65 tokens: the model was made for 64"):
        lowering.lower_decoder(describe_decoder(decoder("gpt2")), "fp32", tmp_path, 65)


def test_a_file_that_is_no_model_is_refused(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    lowered = lowering.lower_decoder(describe_decoder(decoder("llama")), "fp32", tmp_path, CONTEXT)
    (tmp_path / lowered.path).write_bytes(b"no model")
    with pytest.raises(IntegrityFailed, match=r"fp32\.tflite is not a TFLite file"), opened(tmp_path, lowered):
        pass


@contextmanager
def opened(bundle: Path, lowered: Lowered, opener: Any = tflite.open_decoder) -> Iterator[TfliteDecoder]:
    artifact = Artifact("tflite", "any", lowered.path, (), lowered.entry_points, cache=lowered.cache)
    found = opener(bundle, artifact, 1)
    yield found
    found.close()


def stepped(decoder: TfliteDecoder) -> np.ndarray:
    """Logits at every position, token by token."""
    decoder.rewind(0)
    return np.stack([decoder.append([token]) for token in IDS])


def whole(decoder: TfliteDecoder) -> np.ndarray:
    decoder.rewind(0)
    return decoder.append(IDS.tolist())


def chunked(decoder: TfliteDecoder) -> np.ndarray:
    decoder.rewind(0)
    return [decoder.append(part.tolist()) for part in np.split(IDS, [5, 6, 23])][-1]


def taken_back(decoder: TfliteDecoder) -> np.ndarray:
    """After other tokens from position 13 on, and a cache that had grown."""
    decoder.append([5, 6, 7])
    decoder.rewind(13)
    assert decoder.position == 13
    return decoder.append(IDS[13:].tolist())


def logits_of(model: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor(IDS[None])).logits[0].numpy()
    return found


def holding(model: Any, described: DecoderModel) -> Any:
    """A copy of the torch model with the values of the blocks."""
    copied = copy.deepcopy(model)
    for weight in weights_of(described).values():
        name, first = weight.fused or (weight.name, 0)
        with torch.no_grad():
            copied.get_parameter(name)[first : first + weight.shape[0]] = torch.tensor(weight.float32())
    return copied


def narrowed(model: DecoderModel, bits: int) -> DecoderModel:
    """The words and all layers in integers; 4 bits where the width is a multiple of 32."""

    def change(block: Any) -> Any:
        return replace(block, weight=in_bits(block.weight, bits)) if isinstance(block, Linear) else block

    return replace(map_blocks(model, change), words=in_bits(model.words, bits))


def in_bits(weight: Weight, bits: int) -> Weight:
    values = weight.float32()
    in_four = bits == 4 and values.shape[1] % 32 == 0
    return replace(weight, value=in_blocks(values, 32) if in_four else quantize_per_channel(values))


def in_blocks(values: np.ndarray, size: int) -> Quantized:
    blocks = values.reshape(len(values), -1, size)
    scale = (np.abs(blocks).max(-1) / 7.5).astype(np.float16).astype(np.float32)
    integers = np.clip(np.rint(blocks / scale[..., None]), -8, 7).astype(np.int8)
    return Quantized(integers.reshape(values.shape), scale, bits=4)


def scaled(block: Any, name: str, factor: float) -> Any:
    if not isinstance(block, Weight) or block.name != name:
        return block
    value = block.value
    if isinstance(value, Quantized):
        return replace(block, value=replace(value, scale=value.scale * np.float32(factor)))
    return replace(block, value=value * np.float32(factor))
