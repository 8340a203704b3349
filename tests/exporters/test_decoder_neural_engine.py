"""What the layout for the Neural Engine promises of its file, and how a runtime drives it (its numbers are compared in
test_decoder_coreml.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exporters
from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.coreml import lower_decoder
from exporters.formats.coreml.quiet import load_coremltools
from exporters.quantization.integers import to_float16, to_int8
from exporters.verification.exact import coreml as exact
from mobile_llm.artifacts import coreml as reader
from mobile_llm.artifacts.graph import Function
from mobile_llm.backends import Decoder
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.commands import main
from mobile_llm.errors import InvalidSpec

from .conftest import DECODERS, VOCABULARY

CONTEXT, CHUNK = 40, 16
IDS = np.random.default_rng(1).integers(3, VOCABULARY, CONTEXT).tolist()
EXACT, EXACT_HALF = 5e-5, 1e-2  # as in test_decoder_coreml.py
AT_THE_END = ("concat", "cast")  # of the logits


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    load_coremltools()
    from exporters.formats.coreml import neural_engine

    monkeypatch.setattr(neural_engine, "CHUNK", CHUNK)


def _written(blocks: DecoderModel, folder: Path, context: int = CONTEXT) -> Artifact:
    lowered = lower_decoder(to_float16(blocks), "fp16-ane", folder, context)
    return Artifact("coreml", "fp16", lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)


def _stepwise(decoder: Decoder) -> np.ndarray:
    return np.stack([decoder.append([token]) for token in IDS])


def _functions(folder: Path, artifact: Artifact) -> dict[str, Function]:
    return dict(reader.read(folder / artifact.path).functions)


@pytest.mark.parametrize("name", list(DECODERS))
def test_between_the_front_and_the_logits_all_is_float16_of_known_shape(
    name: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    functions = _functions(tmp_path, _written(describe_decoder(decoder(name)), tmp_path))
    assert set(functions) == {f"prefill_{CHUNK}", "decode"}
    for function in functions.values():
        ops = list(function.ops)
        first = next(i for i, op in enumerate(ops) if op.type == "conv")
        while ops[-1].type in AT_THE_END:
            ops.pop()
        made = [function.tensors[output] for op in ops[first:] for output in op.outputs]
        assert {tensor.dtype for tensor in made} == {"float16"}
        assert all(isinstance(size, int) for tensor in made for size in tensor.shape or ())
        assert not {"gather", "linear", "slice_by_size", "topk", "pad"} & {op.type for op in ops[first:]}


def test_a_state_has_rows_in_multiples_of_32(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    artifact = _written(describe_decoder(decoder("llama")), tmp_path)
    for function in _functions(tmp_path, artifact).values():
        assert {function.tensors[name].shape for name in function.states} == {(2, 2, 64, 8)}
    assert artifact.cache is not None
    assert artifact.cache.context == CONTEXT


def test_padding_that_would_not_fit_is_not_read(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    """The last eight tokens of the context, where a chunk has sixteen."""
    artifact = _written(describe_decoder(decoder("mistral")), tmp_path)
    opened = exact.open_decoder(tmp_path, artifact, None)
    steps = _stepwise(opened)
    for start in (0, 17, 31):
        opened.rewind(start)
        assert np.abs(opened.append(IDS[start:]) - steps[-1]).max() < EXACT
        assert opened.position == CONTEXT


def test_a_context_below_one_chunk_is_read_whole(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    artifact = _written(describe_decoder(decoder("gpt2")), tmp_path, context=11)
    assert [entry.signature for entry in artifact.entry_points["prefill"]] == ["prefill_11"]
    opened = exact.open_decoder(tmp_path, artifact, None)
    with torch.inference_mode():
        wanted = decoder("gpt2")(torch.tensor([IDS[:11]])).logits[0, -1].numpy()
    assert np.abs(opened.append(IDS[:11]) - wanted).max() < EXACT_HALF


@pytest.mark.parametrize("name", ["gemma2", "opt", "qwen2"])
def test_a_large_vocabulary_is_in_pieces_that_the_file_has_once(
    name: str, decoder: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma's logits are capped, OPT's table is tied, Qwen2's head is its own."""
    from exporters.formats.coreml import fixed

    monkeypatch.setattr(fixed, "WIDEST", 100)
    blocks = describe_decoder(decoder(name))
    artifact = _written(blocks, tmp_path)
    with torch.inference_mode():
        wanted = decoder(name)(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(_stepwise(exact.open_decoder(tmp_path, artifact, None)) - wanted).max() < 2 * EXACT_HALF
    for function in _functions(tmp_path, artifact).values():
        kernels = [function.tensors[op.arguments["weight"][0]].shape for op in function.ops if op.type == "conv"]
        assert [shape[0] for shape in kernels if shape][-3:] == [100, 100, VOCABULARY - 200]
    size = (tmp_path / artifact.path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    tables = 4 * CONTEXT * 8 * (2 if name == "gemma2" else 1)
    pieces = 8 * 64  # each has a header
    assert size < sum(2 * weight.floats.size + 256 for weight in weights_of(blocks).values()) + tables + pieces


def test_integers_are_those_of_the_other_layout(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    blocks = to_float16(to_int8(describe_decoder(decoder("llama"))))
    lowered = lower_decoder(blocks, "int8-ane", tmp_path, CONTEXT)
    function = reader.read(tmp_path / lowered.path).functions["decode"]
    kernels = [op for op in function.ops if op.type == "constexpr_blockwise_shift_scale"]
    stored = [function.tensors[op.arguments["data"][0]].read() for op in kernels]
    down = blocks.layers[1].feed_forward.down.weight.quantized
    assert down is not None
    assert any(np.array_equal(data[..., 0, 0], down.integers) for data in stored if data.shape[:2] == down.shape)
    assert len(stored) == 1 + 7 * len(blocks.layers)


def test_a_bundle_with_both_layouts_is_compared_and_verified_again(
    decoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model, output = decoder_folder("llama"), tmp_path / "bundle"
    recipes = ("fp32", "int4")
    result = exporters.export(
        model, "text-generation", output, formats=("coreml",), recipes=recipes, context=CONTEXT, neural_engine=True
    )
    assert list(result.artifacts) == [f"coreml/{v}" for v in ("fp32", "int4", "int4-ane")]
    for artifact_id, artifact in result.artifacts.items():
        rows = {(row.entry_point, row.metric): row.status for row in result.rows if row.artifact == artifact_id}
        assert set(rows.values()) == {"passed"}
        scored = set() if artifact_id.endswith("-ane") else {"score"}
        assert {entry for entry, _ in rows} == {"decode", "prefill", "greedy"} | scored
        assert artifact.precision == artifact_id.split("/")[1].removesuffix("-ane")
    assert main(["verify", str(output), "--json"]) == 0
    assert main(["verify", str(output), "--model", str(model), "--json"]) == 0


@pytest.mark.parametrize(
    ("task", "formats", "recipes", "reason"),
    [
        ("feature-extraction", ("coreml",), ("int8",), "are for text-generation, not for feature-extraction"),
        ("text-generation", ("onnx",), ("int8",), "runs Core ML, and the formats are onnx; add coreml"),
        ("text-generation", ("coreml",), ("fp32",), "computes in float16; add one of the recipes"),
    ],
)
def test_where_there_would_be_no_artifact_it_is_refused(
    task: str, formats: tuple[str, ...], recipes: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(InvalidSpec, match=reason):
        exporters.export("a-model", task, "bundle", formats, recipes, neural_engine=True)
