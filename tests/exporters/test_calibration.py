"""int4 by calibration: the second moments, promotion, and the same numbers read back from every format's file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import exporters
from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.decoders.calibrated import recipes_for
from exporters.progress import silent
from exporters.quantization.calibrated import by_calibration, stored_bytes, widening
from exporters.quantization.calibration import calibration_texts, read_windows, write_windows
from exporters.quantization.divergence import divergence
from exporters.quantization.gptq import weighted_error
from exporters.quantization.hessians import Hessians, gather_hessians, inputs_of
from exporters.quantization.integers import to_int4, to_int8
from exporters.sources.huggingface import open_source
from exporters.spec import ExportSpec
from mobile_llm.artifacts import read
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main

from .conftest import DECODERS

Decoder = Callable[[str], Any]
Folder = Callable[[str], Path]
TEXT = "The plot makes no sense, and the jokes fall flat. Żółć 😍 " * 40


@pytest.fixture(scope="module")
def windows() -> tuple[np.ndarray, np.ndarray]:
    """Of unequal number, since both halves weigh the same all the same."""
    random = np.random.default_rng(0)
    return random.integers(3, 259, (40, 60)), random.integers(3, 259, (20, 60))


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "gemma2"])
def test_second_moments_are_those_of_the_inputs(
    name: str, decoder: Decoder, windows: tuple[np.ndarray, np.ndarray]
) -> None:
    """Computed directly, by another road: each layer's own forward is replaced."""
    blocks = describe_decoder(decoder(name))
    found = gather_hessians(decoder(name), blocks, *windows)
    layers = {weight.name for group in inputs_of(blocks) for weight in group}
    assert set(found.inputs) == set(found.means) == {*layers, blocks.head.weight.name}
    assert set(found.outputs) == layers
    for group in inputs_of(blocks):
        parameter = group[0].fused[0] if group[0].fused else group[0].name
        seen = [_inputs(decoder(name), parameter.removesuffix(".weight"), ids) for ids in windows]
        direct = sum(x.T @ x / len(x) for x in seen) / 2
        for weight in group:
            np.testing.assert_allclose(found.inputs[weight.name], direct, atol=1e-4 * np.abs(direct).max())


def _inputs(model: Any, path: str, ids: np.ndarray) -> np.ndarray:
    module, seen = model.get_submodule(path), []
    original = module.forward
    module.forward = lambda x: (seen.append(x.reshape(-1, x.shape[-1])), original(x))[1]
    try:
        with torch.no_grad():
            model(input_ids=torch.from_numpy(ids))
    finally:
        del module.forward
    rows: np.ndarray = torch.cat(seen).double().numpy()
    return rows


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_squared_gradients_are_those_of_the_outputs(
    name: str, decoder: Decoder, windows: tuple[np.ndarray, np.ndarray]
) -> None:
    """By autograd, of numbers added to the outputs of the last layer, for texts whose only scored token is the second:
    what the last layer gives after it changes nothing that is scored."""
    model, blocks = decoder(name), describe_decoder(decoder(name))
    ids = windows[0][:6, :2]
    found = gather_hessians(model, blocks, ids, ids)
    down = blocks.layers[-1].feed_forward.down.weight
    squares = []
    for row in ids:
        moved = torch.zeros(down.shape[0], requires_grad=True)
        module = model.get_submodule(down.name.removesuffix(".weight"))
        handle = module.register_forward_hook(lambda _, given, output, moved=moved: output + moved)
        logits = model(input_ids=torch.from_numpy(row[None])).logits[0, 0]
        handle.remove()
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[row[1]], moved)
        squares.append(gradient.square().numpy())
    np.testing.assert_allclose(found.outputs[down.name], np.mean(squares, axis=0) / 2, rtol=1e-3, atol=1e-9)
    longer = gather_hessians(model, blocks, *windows)
    assert all(np.isfinite(g).all() and g.all() for g in longer.outputs.values())


@pytest.fixture(scope="module")
def calibrated(decoder: Decoder, windows: tuple[np.ndarray, np.ndarray]) -> tuple[DecoderModel, Hessians]:
    blocks = describe_decoder(decoder("llama"))
    return blocks, gather_hessians(decoder("llama"), blocks, *windows)


def test_a_budget_is_spent_on_the_layers_worth_most(calibrated: tuple[DecoderModel, Hessians]) -> None:
    blocks, hessians = calibrated
    narrow = by_calibration(blocks, to_int4(blocks), hessians)
    assert _in_8_bits(narrow) == _in_8_bits(to_int4(blocks))
    smallest = stored_bytes(narrow)
    chosen: set[str] = set()
    for room in (0, 12_000, 40_000, 10_000_000):
        promoted = widening(blocks, narrow, hessians)(room)
        assert stored_bytes(promoted) <= smallest + room
        assert len(_in_8_bits(promoted)) >= len(chosen)
        chosen = _in_8_bits(promoted)
    assert chosen == {name for name, weight in weights_of(blocks).items() if weight.quantized is None and _matrix(name)}


def _matrix(name: str) -> bool:
    return "norm" not in name


def _in_8_bits(model: DecoderModel) -> set[str]:
    return {name for name, w in weights_of(model).items() if w.quantized and w.quantized.bits == 8}


def test_the_models_own_text_is_the_same_every_time(decoder_folder: Folder) -> None:
    source = open_source(str(decoder_folder("llama")), "text-generation")
    written = write_windows(source, 40, 12)
    assert written.shape == (40, 12)
    assert len(np.unique(written[:, 0])) > 20
    np.testing.assert_array_equal(written, write_windows(source, 40, 12))


@pytest.mark.parametrize("name", list(DECODERS))
def test_every_architecture_can_be_calibrated(name: str, decoder_folder: Folder) -> None:
    source = open_source(str(decoder_folder(name)), "text-generation")
    blocks = describe_decoder(source.model)
    texts = calibration_texts(source, blocks, TEXT)
    hessians = gather_hessians(source.model, blocks, texts.written, texts.read)
    rounded, calibrated = (weights_of(m) for m in (to_int4(blocks), by_calibration(blocks, to_int4(blocks), hessians)))
    errors = np.zeros(2)
    for weight, hessian in ((w, hessians.inputs[w.name]) for group in inputs_of(blocks) for w in group):
        differences = (weight.float32() - found[weight.name].float32() for found in (rounded, calibrated))
        errors += [weighted_error(difference, hessian).sum() for difference in differences]
    assert errors[1] < 0.7 * errors[0]


def test_windows_come_from_the_whole_text(decoder_folder: Folder) -> None:
    tokenizer = open_source(str(decoder_folder("llama")), "text-generation").tokenizer
    text = "".join(chr(33 + i % 90) for i in range(900))
    found = read_windows(tokenizer, text, 3, 10)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found.tolist() == [ids[:10], ids[440:450], ids[890:900]]


FORMATS = ("onnx", "tflite", "coreml")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def wide_folder(decoder_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama again, but with rows of several blocks in every layer."""
    folder = Path(shutil.copytree(decoder_folder("llama"), tmp_path_factory.mktemp("wide") / "model"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**DECODERS["llama"][1], "hidden_size": 64, "intermediate_size": 96})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(wide_folder: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compared with the model and with its twin, or it would not be there."""
    output = tmp_path_factory.mktemp("calibrated") / "bundle"
    return exporters.export(wide_folder, "text-generation", output, FORMATS, ("int8", "int4"), calibration=text).bundle


def test_three_formats_hold_the_same_weights(bundle: Path, wide_folder: Path) -> None:
    """Integers and scales alike, by calibration and not by rounding."""
    blocks = describe_decoder(open_source(str(wide_folder), "text-generation").model)
    nearest = weights_of(to_int4(blocks))
    stored = {name: _constants(bundle, name) for name in FORMATS}
    for group in inputs_of(blocks):
        names = [weight.name for weight in group]
        found = [_held(stored[name], name, names) for name in FORMATS]
        rounded = [nearest[name].quantized for name in names]
        for integers, scale in found:
            np.testing.assert_array_equal(integers, found[0][0], err_msg=names[0])
            np.testing.assert_array_equal(scale, found[0][1], err_msg=names[0])
            assert integers.shape == (sum(weight.shape[0] for weight in group), group[0].shape[1])
            assert (integers != np.concatenate([one.integers for one in rounded if one])).any()


def _constants(bundle: Path, format_name: str) -> dict[str, np.ndarray]:
    """By name, those of TFLite without their index, those of Core ML without their function's."""
    graph = read(format_name, bundle / Bundle.open(bundle).manifest.artifacts[f"{format_name}/int4"].path)
    found = [tensor for function in graph.functions.values() for tensor in function.constants()]
    return {re.sub(r"^\d+:|\.\d+$", "", tensor.name): tensor.read() for tensor in found}


def _held(stored: dict[str, np.ndarray], format_name: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Integers (out, in) and scales float32 (out, blocks) of weights that are stored as one."""
    joined = "+".join(name.removesuffix(".weight") for name in names) + ".weight"
    if format_name == "tflite":
        return stored[joined], stored[f"{joined} scales"].astype(np.float32)
    if format_name == "coreml":
        joined = joined.replace("+", "_").replace(".", "_")
        return stored[f"{joined}.data"], stored[f"{joined}.scale"].astype(np.float32)
    joined = {1: names[0], 2: "gate_up", 3: "query_key_value"}[len(names)]
    name = joined if len(names) == 1 else f"{names[0].rsplit('.', 2)[0]}.{joined}.weight"
    return _halves(stored[name]), stored[f"{name}.scale"]


def _halves(packed: np.ndarray) -> np.ndarray:
    halves = np.stack([packed & 15, packed >> 4], axis=-1)
    return halves.reshape(len(halves), -1).astype(np.int8) - 8


def test_a_calibrated_bundle_is_compared_again(
    bundle: Path, wide_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle), "--model", str(wide_folder), "--strict", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    compared = {row["artifact"] for row in rows if "twin" in row["metric"]}
    assert compared == {f"{name}/{recipe}" for name in FORMATS for recipe in ("int8", "int4")}


@pytest.mark.parametrize(("apart", "room"), [(10_000, 0.04), (0, 0.02)])
def test_a_size_is_kept(
    apart: int,
    room: float,
    bundle: Path,
    wide_folder: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Room for some layers in 8 bits, not for all; also where it is thought that they make the graph no larger."""
    monkeypatch.setattr("exporters.quantization.calibrated._APART", apart)
    size = Bundle.open(bundle).manifest.artifacts["onnx/int4"].size / 1e6 + room
    result = exporters.export(
        wide_folder, "text-generation", tmp_path / "bundle", ("onnx",), ("int4",), calibration=text, max_size=size
    )
    assert result.artifacts["onnx/int4"].size <= size * 1e6
    constants = _constants(result.bundle, "onnx").items()
    # In bytes: 32 times 4 bits, or as many times 8 as divide the row.
    sizes = {values.shape[-1] for name, values in constants if "_proj" in name and values.dtype == np.uint8}
    assert sizes >= {16}
    assert sizes & {32, 64}
    assert not [path for path in result.bundle.iterdir() if path.name.startswith("tmp")]


@pytest.fixture(scope="module")
def smaller(bundle: Path, wide_folder: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where 8 bits for the table of words are a few bytes too many."""
    return _smaller_than(bundle, wide_folder, text, tmp_path_factory.mktemp("smaller") / "bundle")


def _smaller_than(bundle: Path, model: Path, text: Path, output: Path) -> Path:
    sizes = {name: artifact.size for name, artifact in Bundle.open(bundle).manifest.artifacts.items()}
    largest = max(size for name, size in sizes.items() if name.endswith("/int4")) / 1e6 - 0.001
    found = exporters.export(model, "text-generation", output, FORMATS, ("int4",), calibration=text, max_size=largest)
    assert max(artifact.size for artifact in found.artifacts.values()) <= largest * 1e6
    return found.bundle


def test_where_8_bits_are_too_many_the_table_of_words_has_4(smaller: Path) -> None:
    table = "model.embed_tokens.weight"
    stored = {name: _constants(smaller, name) for name in FORMATS}
    held = [stored["tflite"][table], stored["coreml"]["model_embed_tokens_weight.data"], _halves(stored["onnx"][table])]
    for integers in held:
        assert (integers.min(), integers.max()) == (-8, 7)
        np.testing.assert_array_equal(integers, held[0])


def test_where_blocks_of_32_are_too_many_they_are_of_64(
    smaller: Path, wide_folder: Path, text: Path, tmp_path: Path
) -> None:
    """Where rows divide into them: those of 64 do, and those of 96 do not."""
    for bundle, size in ((smaller, 32), (_smaller_than(smaller, wide_folder, text, tmp_path / "bundle"), 64)):
        integers = {name: values for name, values in _constants(bundle, "onnx").items() if values.dtype == np.uint8}
        blocks = {name.split(".")[-2]: 2 * values.shape[-1] for name, values in integers.items() if "_proj" in name}
        assert blocks == {"o_proj": size, "down_proj": 32}


def test_a_divergence_is_kept_with_few_bytes(wide_folder: Path, text: Path, tmp_path: Path) -> None:
    """Of what 4 bits cost by rounding to nearest, calibrated layers cost less, and some in 8 bits much less."""
    source = open_source(str(wide_folder), "text-generation")
    blocks = describe_decoder(source.model)
    windows = read_windows(source.tokenizer, TEXT, 8, 32)
    all_narrow = divergence(source.model, to_int4(blocks), windows)

    def stored(max_kl: float) -> tuple[float, int]:
        spec = ExportSpec(
            str(wide_folder), "text-generation", tmp_path, recipes=("int4",), calibration=str(text), max_kl=max_kl
        )
        model = recipes_for(spec, source, blocks, TEXT, lambda _: {}, silent)["int4"](blocks)
        return divergence(source.model, model, windows), stored_bytes(model)

    found = [stored(share * all_narrow) for share in (1, 0.1, 0.05)]
    for (apart, _), share in zip(found, (1, 0.1, 0.05)):
        assert apart < share * all_narrow
    sizes = [size for _, size in found]
    assert stored_bytes(to_int4(blocks)) == sizes[0] < sizes[1] < sizes[2] < stored_bytes(to_int8(blocks))
