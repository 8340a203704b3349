"""Decoders in ONNX, run by onnxruntime: every architecture at every position, read in one go, in steps and in chunks;
integers against the PyTorch model that holds what they stand for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from exporters.architectures.blocks import Linear, map_blocks, weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.onnx import graph, lower_decoder, products
from exporters.formats.onnx.graph import FLOAT, INT64, Graph
from exporters.quantization.integers import quantize_per_channel, to_float16
from exporters.verification.exact import onnx as exact
from mobile_llm.artifacts import read
from mobile_llm.artifacts.bindings import check_bindings
from mobile_llm.artifacts.graph import Function
from mobile_llm.backends import Decoder, onnx_decoder
from mobile_llm.backends import onnx as backend
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import IntegrityFailed, InvalidSpec, UnsupportedModel

from .conftest import DECODERS, VOCABULARY

CONTEXT = 64
IDS = [int(i) for i in np.random.default_rng(0).integers(3, VOCABULARY, 40)]  # five windows long
# Logits reach 6, and sums of float32 in another order move them by up to 8e-6.
SAME = 5e-5
# int8 activations are off by up to 1/254 of their range, in some ten products one after the other: up to .27 here.
ROUNDED = 0.5

PIECES = {"int4": 5, "mixed": 9}  # of 1,024 bytes

Make = Callable[[str], Any]
Quantize = Callable[[Weight], Quantized]


def write(described: DecoderModel, folder: Path, precision: str = "fp32") -> Artifact:
    lowered = lower_decoder(described, precision, folder, CONTEXT)
    return Artifact("onnx", precision, lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)


def graph_of(path: Path) -> Function:
    (graph,) = read("onnx", path).functions.values()
    return graph


def reference(model: Any) -> np.ndarray:
    """Logits at every position (40, vocabulary)."""
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([IDS])).logits[0].numpy()
    return logits


def stepped(decoder: Decoder) -> np.ndarray:
    return np.stack([decoder.append([token]) for token in IDS])


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


@pytest.fixture(autouse=True)
def _short_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches have to grow twice on the way."""
    monkeypatch.setattr(onnx_decoder, "_FIRST_CAPACITY", 16)


@pytest.mark.parametrize("name", list(DECODERS))
def test_every_position_agrees_however_it_is_read(name: str, decoder: Make, tmp_path: Path) -> None:
    expected = reference(decoder(name))
    artifact = write(describe_decoder(decoder(name)), tmp_path)
    check_bindings(artifact, read("onnx", tmp_path / artifact.path))
    opened = backend.open_decoder(tmp_path, artifact, 1)
    assert (opened.context, opened.position) == (CONTEXT, 0)
    assert apart(stepped(opened), expected) < SAME
    opened.rewind(0)
    assert apart(opened.append(IDS), expected[-1]) < SAME
    opened.rewind(9)
    last = opened.score(IDS[9:])
    opened.rewind(0)
    assert apart(opened.score(IDS[:5]), expected[:5]) < SAME
    assert apart(last, expected[9:]) < SAME
    assert apart(opened.append([IDS[5]]), expected[5]) < SAME
    opened.append(IDS[6:9])
    opened.rewind(7)
    assert opened.position == 7
    for start, end in ((7, 19), (19, 20), (20, 40)):
        assert apart(opened.append(IDS[start:end]), expected[end - 1]) < SAME
    opened.close()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_prompt_is_read_in_chunks(
    precision: str, decoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = describe_decoder(decoder("llama"))
    artifact = write(quantized(described, in_blocks) if precision == "int4" else described, tmp_path, precision)
    whole = backend.open_decoder(tmp_path, artifact, 1).append(IDS)
    for name in ("_CHUNK", "_FLOAT_CHUNK"):
        monkeypatch.setattr(onnx_decoder, name, 13)
    opened = backend.open_decoder(tmp_path, artifact, 1)
    run = Mock(wraps=opened._session.run_with_iobinding)
    monkeypatch.setattr(opened, "_session", Mock(run_with_iobinding=run))
    assert apart(opened.append(IDS), whole) < SAME
    assert run.call_count == 4  # the last token is alone
    opened.rewind(20)
    assert apart(opened.append(IDS[20:]), whole) < SAME


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_heads_that_the_kernel_turns_itself(name: str, tmp_path: Path) -> None:
    """The tiny models' heads are too narrow for it; real ones are not."""
    kind, settings = DECODERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**settings, "head_dim": 16, "initializer_range": 0.2})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    artifact = write(describe_decoder(model), tmp_path)
    assert apart(stepped(backend.open_decoder(tmp_path, artifact, 1)), reference(model)) < SAME


def test_float16_is_storage(decoder: Make, tmp_path: Path) -> None:
    described = to_float16(describe_decoder(decoder("llama")))
    artifact = write(described, tmp_path, "fp16")
    found = stepped(backend.open_decoder(tmp_path, artifact, 1))
    assert apart(found, reference(holding(decoder("llama"), described))) < SAME
    assert artifact.path == "onnx/model_fp16.onnx"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_clients_that_hand_the_caches_over_get_the_same(name: str, decoder: Make, tmp_path: Path) -> None:
    """As optimum and transformers.js do it: an empty cache goes in, what comes out goes in again."""
    expected = reference(decoder(name))
    artifact = write(describe_decoder(decoder(name)), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / artifact.path), providers=["CPUExecutionProvider"])
    cache = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in session.get_inputs()[2:]}
    for start, end in ((0, 11), (11, 12), (12, 40)):
        feeds = {"input_ids": np.array([IDS[start:end]]), "attention_mask": np.ones((1, end), np.int64), **cache}
        logits, *present = session.run(None, feeds)
        cache = dict(zip(cache, present))
        assert logits.shape == (1, 1, VOCABULARY)
        assert apart(logits[0, 0], expected[end - 1]) < SAME


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_sequences_of_one_length_are_a_batch(name: str, decoder: Make, tmp_path: Path) -> None:
    model = decoder(name)
    ids = np.array([IDS, IDS[::-1]])
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    artifact = write(describe_decoder(model), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / artifact.path), providers=["CPUExecutionProvider"])
    cache = {i.name: np.zeros((2, i.shape[1], 0, i.shape[3]), np.float32) for i in session.get_inputs()[2:]}
    for start, end in ((0, 30), (30, 31), (31, 32)):
        feeds = {"input_ids": ids[:, start:end], "attention_mask": np.ones((2, end), np.int64), **cache}
        logits, *present = session.run(None, feeds)
        cache = dict(zip(cache, present))
        assert apart(logits[:, 0], expected[:, end - 1]) < SAME


def in_blocks(weight: Weight) -> Quantized:
    """4 bits to the nearest, in blocks of 16."""
    blocks = weight.float32().reshape(weight.shape[0], -1, 16)
    scale = (np.abs(blocks).max(-1) / 7.5).astype(np.float16).astype(np.float32)
    integers = np.clip(np.rint(blocks / scale[..., None]), -8, 7).astype(np.int8)
    return Quantized(integers.reshape(weight.shape), scale, bits=4)


def by_channel(weight: Weight) -> Quantized:
    return quantize_per_channel(weight.float32())


def mixed(weight: Weight) -> Quantized:
    """Values and the table keep 8 bits, as sensitive weights do."""
    return by_channel(weight) if "v_proj" in weight.name or "embed" in weight.name else in_blocks(weight)


def caches(weight: Weight) -> Quantized:
    """Keys and values keep 8 bits."""
    return by_channel(weight) if "k_proj" in weight.name or "v_proj" in weight.name else in_blocks(weight)


RECIPES: Mapping[str, tuple[str, Quantize]] = {
    "int8": ("int8", by_channel),
    "int4": ("int4", in_blocks),
    "mixed": ("int4", mixed),
    "caches": ("int4", caches),
}


def quantized(model: DecoderModel, quantize: Quantize) -> DecoderModel:
    def change(block: Any) -> Any:
        if isinstance(block, Linear):
            return replace(block, weight=replace(block.weight, value=quantize(block.weight)))
        return block

    return replace(map_blocks(model, change), words=replace(model.words, value=quantize(model.words)))


def holding(model: Any, described: DecoderModel) -> Any:
    """A copy of the PyTorch model with the values that `described` stands for."""
    held = copy.deepcopy(model)
    parameters = dict(held.named_parameters())
    with torch.no_grad():
        for weight in weights_of(described).values():
            name, first = weight.fused or (weight.name, 0)
            if name in parameters:
                parameters[name][first : first + weight.shape[0]] = torch.from_numpy(weight.float32())
    return held


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("name", ["gemma2", "gpt2", "llama", "phi3", "qwen2", "qwen3"])
def test_integers_are_those_of_the_weights(name: str, recipe: str, decoder: Make, tmp_path: Path) -> None:
    """Exactly, once they are widened; as close as rounded activations allow, as they are run."""
    precision, quantize = RECIPES[recipe]
    described = quantized(describe_decoder(decoder(name)), quantize)
    expected = reference(holding(decoder(name), described))
    artifact = write(described, tmp_path, precision)
    check_bindings(artifact, read("onnx", tmp_path / artifact.path))
    assert apart(stepped(exact.open_decoder(tmp_path, artifact, 1)), expected) < SAME
    opened = backend.open_decoder(tmp_path, artifact, 1)
    found = stepped(opened)
    opened.rewind(0)
    assert apart(found, expected) < ROUNDED
    assert apart(opened.append(IDS), expected[-1]) < ROUNDED


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("part", ["self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"])
def test_a_weight_that_is_scaled_is_noticed(recipe: str, part: str, decoder: Make, tmp_path: Path) -> None:
    precision, quantize = RECIPES[recipe]
    described = quantized(describe_decoder(decoder("llama")), quantize)

    def change(block: Any) -> Any:
        if isinstance(block, Weight) and block.quantized and f"layers.1.{part}" in block.name:
            return replace(block, value=replace(block.quantized, scale=block.quantized.scale * np.float32(1.05)))
        return block

    artifact = write(map_blocks(described, change), tmp_path, precision)
    expected = reference(holding(decoder("llama"), described))
    assert apart(stepped(exact.open_decoder(tmp_path, artifact, 1)), expected) > 100 * SAME


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_a_tied_table_is_stored_once(recipe: str | None, decoder: Make, tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    if recipe:
        described = quantized(described, RECIPES[recipe][1])
    artifact = write(described, tmp_path)
    proto = onnx.load(str(tmp_path / artifact.path), load_external_data=False)
    stored: dict[str, int] = {}  # bytes by where they are
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("model.embed_tokens.weight"):
            beside = {entry.key: entry.value for entry in tensor.external_data}
            stored[beside.get("offset", tensor.name)] = int(beside.get("length", len(tensor.raw_data)))
    exact_size = {None: 32 * 4, "int8": 32 + 2, "int4": 16 + 4, "mixed": 32 + 2, "caches": 16 + 4}
    assert sum(stored.values()) == VOCABULARY * exact_size[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tied_table_is_not_copied_as_a_file_is_opened(recipe: str, decoder: Make, tmp_path: Path) -> None:
    """A Reshape of it would be computed then, and kept beside the table."""
    artifact = write(quantized(describe_decoder(decoder("llama")), RECIPES[recipe][1]), tmp_path)
    changed = [op for op in graph_of(tmp_path / artifact.path).ops if op.type == "Reshape"]
    assert not [op for op in changed if any(name.startswith("model.embed_tokens") for name in op.inputs)]


def test_a_row_with_one_scale_is_looked_up_without_repeating_it(tmp_path: Path) -> None:
    """Of a width that is no power of two, as blocks are."""
    table = by_channel(Weight("table", np.random.default_rng(0).standard_normal((20, 48), np.float32)))
    built = Graph("lookup")
    found = products.Products(built, in_blocks=True).rows(Weight("table", table), built.input("ids", INT64, ["count"]))
    built.output(built.node("Identity", [found], "rows"), FLOAT, ["count", 48])
    built.save(tmp_path / "lookup.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "lookup.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([3, 19, 0, 3])
    assert np.array_equal(session.run(None, {"ids": ids})[0], table.dequantized()[ids])
    assert not [op for op in graph_of(tmp_path / "lookup.onnx").ops if op.type == "Expand"]


@pytest.mark.parametrize(("name", "recipe"), [("llama", "int4"), ("llama", "mixed"), ("phi3", "int4")])
def test_a_large_head_is_multiplied_in_pieces_of_the_same_bytes(
    name: str, recipe: str, decoder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tied or not. Scales lie beside the file too, as those of a large head do."""
    monkeypatch.setattr(graph, "_BESIDE", 256)
    described = quantized(describe_decoder(decoder(name)), RECIPES[recipe][1])
    whole = write(described, tmp_path / "whole", "int4")
    monkeypatch.setattr(products, "_PIECE", 1024)
    monkeypatch.setattr(products, "_PIECE_ROWS", 8)
    pieces = write(described, tmp_path / "pieces", "int4")
    assert [len(of_the_head(tmp_path / folder / whole.path)) for folder in ("whole", "pieces")] == [1, PIECES[recipe]]
    assert sum(of_the_head(tmp_path / "pieces" / pieces.path)) == VOCABULARY
    written = onnx.load(str(tmp_path / "pieces" / pieces.path), load_external_data=False).graph
    assert {tensor.name for tensor in written.initializer} <= {name for node in written.node for name in node.input}
    beside = [(tmp_path / folder / f"{whole.path}_data").read_bytes() for folder in ("whole", "pieces")]
    assert beside[0] == beside[1]
    for opened in (backend.open_decoder, exact.open_decoder):
        found = [stepped(opened(tmp_path / folder, whole, 1)) for folder in ("whole", "pieces")]
        assert np.array_equal(*found)


def of_the_head(path: Path) -> list[int]:
    """How many of its rows each product has."""
    found = [op for op in graph_of(path).ops if op.type.endswith("MatMulNBits")]
    return [int(op.attributes["N"]) for op in found if op.inputs[1].startswith(("model.embed_tokens", "lm_head"))]


@pytest.mark.parametrize(
    ("recipe", "products"),
    [
        ("int4", {"query_key_value"}),
        ("mixed", {"query_key", "v_proj"}),
        ("caches", {"q_proj", "key_value"}),
    ],
)
def test_query_key_and_value_are_as_few_products_as_can_be(
    recipe: str, products: set[str], decoder: Make, tmp_path: Path
) -> None:
    artifact = write(quantized(describe_decoder(decoder("llama")), RECIPES[recipe][1]), tmp_path)
    names = [op.inputs[1] for op in graph_of(tmp_path / artifact.path).ops if "MatMul" in op.type]
    ours = {name.split(".")[4] for name in names if name.startswith("model.layers.0.self_attn.")}
    assert ours == products | {"o_proj"}


def test_scales_are_widened_once(decoder: Make, tmp_path: Path) -> None:
    artifact = write(quantized(describe_decoder(decoder("llama")), RECIPES["mixed"][1]), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / artifact.path), options, providers=["CPUExecutionProvider"])
    written, optimized = (graph_of(tmp_path / path) for path in (artifact.path, "optimized.onnx"))
    widened = [
        [op for op in graph.ops if op.type == "Cast" and op.inputs[0].endswith(".scale")]
        for graph in (written, optimized)
    ]
    assert len(widened[0]) > 4
    assert not widened[1]


def test_the_same_model_gives_the_same_bytes(decoder: Make, tmp_path: Path) -> None:
    described = describe_decoder(decoder("qwen3"))
    for folder in ("one", "two"):
        write(described, tmp_path / folder)
    files = [sorted(path.name for path in (tmp_path / folder / "onnx").iterdir()) for folder in ("one", "two")]
    assert files == [["model.onnx", "model.onnx_data"]] * 2
    for name in files[0]:
        assert (tmp_path / "one/onnx" / name).read_bytes() == (tmp_path / "two/onnx" / name).read_bytes()


def in_narrow_blocks(weight: Weight) -> Quantized:
    scale = np.ones((weight.shape[0], weight.shape[1] // 8), np.float32)
    return Quantized(np.zeros(weight.shape, np.int8), scale, bits=4)


def test_what_cannot_be_run_is_refused(decoder: Make, tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    with pytest.raises(InvalidSpec, match="65 tokens is asked for; the model was made for 1 to 64"):
        lower_decoder(described, "fp32", tmp_path, 65)
    attention = replace(described.layers[0].attention, head_dim=12)
    odd = replace(described, layers=(replace(described.layers[0], attention=attention),))
    with pytest.raises(UnsupportedModel, match="heads of 12 numbers"):
        lower_decoder(odd, "fp32", tmp_path, CONTEXT)
    with pytest.raises(UnsupportedModel, match=r"embed_tokens\.weight has 8 integers to a scale"):
        lower_decoder(quantized(described, in_narrow_blocks), "int4", tmp_path, CONTEXT)
    with pytest.raises(IntegrityFailed, match="no single decode entry with a grown cache"):
        backend.open_decoder(tmp_path, replace(write(described, tmp_path), cache=None), 1)
