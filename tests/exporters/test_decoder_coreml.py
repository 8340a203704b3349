"""Decoders in Core ML, in both layouts, run by the evaluator: logits of every architecture against PyTorch, integers,
states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.architectures.blocks import Linear, map_blocks, weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.coreml import lower_decoder
from exporters.formats.coreml.quiet import load_coremltools
from exporters.quantization.integers import quantize_per_channel, to_float16
from exporters.verification import mil
from exporters.verification.exact import coreml as exact
from mobile_llm.artifacts import coreml as reader
from mobile_llm.artifacts.bindings import check_bindings
from mobile_llm.backends import Decoder, coreml
from mobile_llm.backends.stateful import stateful_decoder
from mobile_llm.bundle.manifest import Artifact, KvCache
from mobile_llm.errors import BackendUnavailable, InvalidSpec, UnsupportedModel, VerificationFailed

from .conftest import DECODERS, VOCABULARY

CONTEXT = 48
IDS = np.random.default_rng(0).integers(3, VOCABULARY, 40).tolist()  # five windows of the windowed models

# Largest difference of a logit; their standard deviation is 1.1 to 1.3.
EXACT = 5e-5  # float32 sums in another order: .8e-5 is seen
EXACT_HALF = 1e-2  # without float16 results; what is left is float16 constants: scales, caps, Gemma's 1 + weight
CACHE_HALF = 2e-2  # fp32, whose keys and values are rounded to float16: half a thousandth each
HALF = 5e-2  # every result rounded to float16, and every weight

Blocks = Callable[[DecoderModel], DecoderModel]


def _as_described(model: DecoderModel) -> DecoderModel:
    return model


RECIPES: dict[str, Blocks] = {"fp32": _as_described, "fp16": to_float16, "fp16-ane": to_float16}
LAYOUTS = ["fp16", "fp16-ane"]


@pytest.fixture(autouse=True, scope="module")
def short_chunks() -> Iterator[None]:
    """Of the fixed layout, so that tiny contexts hold several."""
    load_coremltools()
    from exporters.formats.coreml import neural_engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_engine, "CHUNK", 16)
        yield


def _artifact(blocks: DecoderModel, variant: str, bundle: Path) -> Artifact:
    lowered = lower_decoder(blocks, variant, bundle, CONTEXT)
    precision = variant.removesuffix("-ane")
    return Artifact("coreml", precision, lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)


@pytest.fixture(scope="module")
def lowered(
    decoder: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Path, Artifact]]:
    """The bundle and artifact of an architecture, written once."""

    @cache
    def write(name: str, precision: str) -> tuple[Path, Artifact]:
        bundle = tmp_path_factory.mktemp(name)
        return bundle, _artifact(RECIPES[precision](describe_decoder(decoder(name))), precision, bundle)

    return write


def _torch_logits(model: Any, blocks: DecoderModel | None = None) -> np.ndarray:
    """(40, vocabulary) of the model as it is, or holding the weights of `blocks`."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for weight in weights_of(blocks).values() if blocks else ():
        name, first = weight.fused or (weight.name, 0)
        parts.setdefault(name, {})[first] = weight.float32()
    held = {name: torch.from_numpy(np.concatenate([p[k] for k in sorted(p)])) for name, p in parts.items()}
    with torch.inference_mode():
        return torch.func.functional_call(model, held, (torch.tensor([IDS]),)).logits[0].numpy()


def _stepwise(decoder: Decoder, ids: Sequence[int] = IDS) -> np.ndarray:
    return np.stack([decoder.append([token]) for token in ids])


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("name", list(DECODERS))
def test_fp32_agrees_with_torch_at_every_position(
    name: str, decoder: Callable[[str], Any], lowered: Callable[[str, str], tuple[Path, Artifact]]
) -> None:
    wanted = _torch_logits(decoder(name))
    assert _difference(_stepwise(exact.open_decoder(*lowered(name, "fp32"), None)), wanted) < EXACT
    assert _difference(mil.open_decoder(*lowered(name, "fp32"), None).append(IDS), wanted[-1]) < CACHE_HALF


@pytest.mark.parametrize("variant", LAYOUTS)
@pytest.mark.parametrize("name", list(DECODERS))
def test_fp16_agrees_with_torch_at_every_position(
    name: str, variant: str, decoder: Callable[[str], Any], lowered: Callable[[str, str], tuple[Path, Artifact]]
) -> None:
    found = _stepwise(mil.open_decoder(*lowered(name, variant), None))
    assert _difference(found, _torch_logits(decoder(name))) < HALF
    twin = _torch_logits(decoder(name), to_float16(describe_decoder(decoder(name))))
    assert _difference(exact.open_decoder(*lowered(name, variant), None).append(IDS), twin[-1]) < EXACT_HALF


@pytest.mark.parametrize("variant", ["fp32", "fp16-ane"])
@pytest.mark.parametrize("name", ["gemma2", "gpt2", "mistral"])
def test_prefill_in_one_go_in_chunks_and_step_by_step_are_one(
    name: str, variant: str, lowered: Callable[[str, str], tuple[Path, Artifact]]
) -> None:
    bundle, artifact = lowered(name, variant)
    opened = exact.open_decoder(bundle, artifact, None)
    steps = _stepwise(opened)
    assert (opened.context, opened.position) == (CONTEXT, 40)
    for sizes in ([40], [13, 1, 26], [1, 39]):
        opened.rewind(0)
        for end in np.cumsum(sizes).tolist():
            logits = opened.append(IDS[opened.position : end])
            assert _difference(logits, steps[end - 1]) < EXACT
    opened.close()


def test_the_default_function_gives_every_position(lowered: Callable[[str, str], tuple[Path, Artifact]]) -> None:
    steps = _stepwise(exact.open_decoder(*lowered("mistral", "fp32"), None))
    assert _difference(_scored(*lowered("mistral", "fp32")), steps) < EXACT


@pytest.mark.parametrize("variant", ["fp32", "fp16-ane"])
def test_the_manifest_describes_the_file(variant: str, lowered: Callable[[str, str], tuple[Path, Artifact]]) -> None:
    bundle, artifact = lowered("gemma2", variant)
    check_bindings(artifact, reader.read(bundle / artifact.path))
    assert artifact.cache == KvCache("state", layers=2, kv_heads=2, head_dim=8, dtype="float16", context=CONTEXT)


def _scored(bundle: Path, artifact: Artifact) -> np.ndarray:
    """Every position at once, by the function that other clients load."""
    (entry,) = artifact.entry_points["score"]
    feeds = {"input_ids": np.array([IDS], np.int32), "causal_mask": np.zeros((1, 1, 1, 41), np.float16)}
    return exact.open_session(bundle, artifact, None).run(entry, feeds)["logits"][0]


@pytest.mark.parametrize("variant", ["fp32", "fp16-ane"])
def test_what_is_rewound_is_forgotten(variant: str, lowered: Callable[[str, str], tuple[Path, Artifact]]) -> None:
    opened = exact.open_decoder(*lowered("llama", variant), None)
    steps = _stepwise(opened)
    opened.rewind(17)
    opened.append([5] * 20)
    opened.rewind(17)
    assert opened.position == 17
    assert _difference(_stepwise(opened, IDS[17:]), steps[17:]) < EXACT
    with pytest.raises(ValueError, match="holds 40 tokens; it cannot go to 41"):
        opened.rewind(41)


def _blocks_of_16(values: np.ndarray) -> Quantized:
    """int4 to the nearest, with scales that float16 holds."""
    parts = values.reshape(len(values), -1, 16)
    scale = (np.abs(parts).max(-1) / 7.5).astype(np.float16).astype(np.float32)
    integers = np.clip(np.rint(parts / scale[..., None]), -8, 7).astype(np.int8)
    return Quantized(integers.reshape(values.shape), scale, bits=4)


def _quantized(model: DecoderModel, rule: Callable[[np.ndarray], Quantized], of: str = "") -> DecoderModel:
    """Matrices whose name has `of` in it as integers, but for the table of positions; the rest in float16."""

    def change(block: Any) -> Any:
        is_matrix = isinstance(block, Weight) and len(block.shape) == 2 and not block.quantized
        if is_matrix and of in block.name and block is not model.positions:
            return replace(block, value=rule(block.float32()))
        return block

    return to_float16(map_blocks(model, change))


@pytest.mark.parametrize("layout", ["", "-ane"])
@pytest.mark.parametrize(("precision", "rule"), [("int8", quantize_per_channel), ("int4", _blocks_of_16)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_integers_agree_with_torch_holding_what_they_stand_for(
    name: str,
    precision: str,
    rule: Callable[[np.ndarray], Quantized],
    layout: str,
    decoder: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    blocks = _quantized(describe_decoder(decoder(name)), rule)
    artifact = _artifact(blocks, precision + layout, tmp_path)
    twin = _torch_logits(decoder(name), blocks)
    assert _difference(_stepwise(exact.open_decoder(tmp_path, artifact, None)), twin) < EXACT_HALF
    assert _difference(mil.open_decoder(tmp_path, artifact, None).append(IDS), twin[-1]) < HALF


@pytest.mark.parametrize("variant", ["int4", "int4-ane"])
def test_layers_may_mix_int4_int8_and_floats(variant: str, decoder: Callable[[str], Any], tmp_path: Path) -> None:
    blocks = _quantized(describe_decoder(decoder("llama")), quantize_per_channel, of="q_proj")
    blocks = _quantized(blocks, _blocks_of_16, of="gate_proj")
    found = exact.open_decoder(tmp_path, _artifact(blocks, variant, tmp_path), None).append(IDS)
    assert _difference(found, _torch_logits(decoder("llama"), blocks)[-1]) < EXACT_HALF


def _bytes(weight: Weight) -> int:
    if weight.quantized:
        return weight.quantized.integers.size * weight.quantized.bits // 8 + 2 * weight.quantized.scale.size
    return 2 * weight.floats.size


@pytest.mark.parametrize(("bits", "rule"), [(8, quantize_per_channel), (4, _blocks_of_16)])
def test_the_file_holds_our_integers_and_scales_and_a_tied_table_once(
    bits: int, rule: Callable[[np.ndarray], Quantized], decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    blocks = _quantized(describe_decoder(decoder("llama")), rule)
    path = tmp_path / _artifact(blocks, f"int{bits}", tmp_path).path
    size = (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    tables = 2 * 4 * CONTEXT * 4  # of positions
    assert size - tables < sum(_bytes(weight) + 256 for weight in weights_of(blocks).values())  # for both functions
    function = reader.read(path).functions["main"]
    words = blocks.words.quantized
    assert words is not None
    stored = [op for op in function.ops if op.type == "constexpr_blockwise_shift_scale"]
    data = {op.name: [function.tensors[op.arguments[field][0]] for field in ("data", "scale")] for op in stored}
    table = [pair for pair in data.values() if pair[0].shape == words.shape]
    assert len(table) == 1
    integers, scale = table[0]
    assert (integers.dtype, scale.dtype) == (f"int{bits}", "float16")
    np.testing.assert_array_equal(integers.read(), words.integers)
    np.testing.assert_array_equal(scale.read().astype(np.float32), words.scale)
    assert len(stored) == 1 + 4 * len(blocks.layers)  # query, key and value are one weight, gate and up another


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_weight_that_is_slightly_wrong_is_noticed(
    variant: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    def change(block: Any) -> Any:
        wrong = isinstance(block, Weight) and block.name.endswith("layers.1.self_attn.v_proj.weight")
        return replace(block, value=block.floats * np.float32(1.05)) if wrong else block

    blocks = to_float16(map_blocks(describe_decoder(decoder("llama")), change))
    found = exact.open_decoder(tmp_path, _artifact(blocks, variant, tmp_path), None).append(IDS)
    right = _torch_logits(decoder("llama"), to_float16(describe_decoder(decoder("llama"))))
    assert _difference(found, right[-1]) > 5 * EXACT_HALF


@pytest.mark.parametrize("variant", LAYOUTS)
def test_norms_hold_a_residual_whose_square_float16_cannot(
    variant: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    described = describe_decoder(decoder("llama"))
    large = replace(described.words, value=described.words.floats * np.float32(3e4))
    assert 1e4 < np.abs(large.floats).max() < 6e4
    blocks = replace(described, words=large, head=Linear(replace(described.words, name="lm_head.weight")))
    opened = mil.open_decoder(tmp_path, _artifact(to_float16(blocks), variant, tmp_path), None)
    held = {"model.embed_tokens.weight": large.floats, "lm_head.weight": described.words.floats}
    held = {name: torch.from_numpy(values) for name, values in held.items()}
    with torch.inference_mode():
        wanted = torch.func.functional_call(decoder("llama"), held, (torch.tensor([IDS]),), tie_weights=False)
    assert _difference(_stepwise(opened), wanted.logits[0].numpy()) < HALF


def test_sums_over_the_layers_and_norms_of_them_are_float32(
    lowered: Callable[[str, str], tuple[Path, Artifact]],
) -> None:
    bundle, artifact = lowered("gemma2", "fp16")  # with norms after the blocks too
    function = reader.read(bundle / artifact.path).functions["main"]
    hidden = [op for op in function.ops if op.type == "add" and function.tensors[op.outputs[0]].shape[-1:] == (32,)]
    norms = [op for op in function.ops if op.type == "rsqrt"]
    products = [op for op in function.ops if op.type == "linear"]
    assert (len(hidden), len(norms)) == (4, 9)
    assert {function.tensors[op.outputs[0]].dtype for op in hidden + norms} == {"float32"}
    assert {function.tensors[op.outputs[0]].dtype for op in products} == {"float16"}


@pytest.mark.parametrize("variant", LAYOUTS)
def test_logits_are_as_fine_as_their_distance_from_the_level(
    variant: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    described = to_float16(describe_decoder(decoder("llama")))
    bias = Weight("lm_head.bias", np.full(VOCABULARY, 1000, np.float32))
    blocks = replace(described, head=replace(described.head, bias=bias))
    wanted = _torch_logits(decoder("llama"), described) + 1000

    def error(level: float) -> float:
        artifact = _artifact(replace(blocks, level=level), variant, tmp_path / f"{level:g}")
        return _difference(_stepwise(mil.open_decoder(tmp_path / f"{level:g}", artifact, None)), wanted)

    assert error(0) > 0.2  # float16 counts by 1/2 from 512 on
    assert error(1000) < HALF


@pytest.mark.parametrize(("variant", "product"), [("fp16", "linear"), ("fp16-ane", "conv")])
def test_a_value_that_is_not_finite_is_refused(
    variant: str, product: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    described = describe_decoder(decoder("llama"))
    large = replace(described.words, value=described.words.floats * np.float32(6e4))
    blocks = replace(described, words=large, head=Linear(large))
    opened = mil.open_decoder(tmp_path, _artifact(to_float16(blocks), variant, tmp_path), None)
    with pytest.raises(VerificationFailed, match=rf"{product} '{product}_\d+' gives a value that is not finite"):
        opened.append(IDS)  # the head's product
    assert opened.position == 0


@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_longer_context_than_the_model_was_made_for_is_refused(
    variant: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidSpec, match="context of 65 tokens: the model was made for 64, ask for fewer"):
        lower_decoder(describe_decoder(decoder("llama")), variant, tmp_path, 65)


def test_layers_with_other_heads_are_refused(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    first = replace(described.layers[0], attention=replace(described.layers[0].attention, kv_heads=4))
    with pytest.raises(UnsupportedModel, match=r"theirs differ: \(heads, numbers\) \[\(2, 8\), \(4, 8\)\]"):
        lower_decoder(replace(described, layers=(first, *described.layers[1:])), "fp16", tmp_path, CONTEXT)


@pytest.mark.parametrize("variant", LAYOUTS)
def test_core_ml_itself_is_on_a_mac_only_and_a_session_is_no_decoder(
    variant: str, lowered: Callable[[str, str], tuple[Path, Artifact]]
) -> None:
    bundle, artifact = lowered("llama", variant)
    with pytest.raises(BackendUnavailable, match="Core ML runs on Apple systems only"):
        coreml.open_decoder(bundle, artifact, None)
    with pytest.raises(InvalidSpec, match="keeps no state"):
        stateful_decoder(replace(artifact, cache=None), lambda entry, inputs: {}, lambda: None)


@pytest.mark.parametrize("variant", LAYOUTS)
def test_the_same_model_gives_the_same_bytes(
    variant: str, decoder: Callable[[str], Any], lowered: Callable[[str, str], tuple[Path, Artifact]], tmp_path: Path
) -> None:
    bundle, artifact = lowered("llama", variant)
    _artifact(to_float16(describe_decoder(decoder("llama"))), variant, tmp_path)
    files = sorted(path for path in (bundle / artifact.path).rglob("*") if path.is_file())
    assert len(files) == 3
    for path in files:
        assert path.read_bytes() == (tmp_path / path.relative_to(bundle)).read_bytes()
