"""Models that write, with tiny random weights: every architecture in all three formats, compared as any export is, and
what comes out writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporters
import mobile_llm
from exporters.verification.decoders import check_decoder, read_golden
from mobile_llm.artifacts import coreml as coreml_reader
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main
from mobile_llm.errors import ContextFull, InvalidInput, InvalidSpec, VerificationFailed
from mobile_llm.generation.engine import DecoderEngine

from .conftest import DECODERS

Folder = Callable[[str], Path]
ALL = ("fp32", "fp16", "int8", "int4")
# The others differ in blocks, not in how weights are stored.
RECIPES = {name: ALL if name in ("gemma3_text", "llama") else ("fp32", "int8") for name in DECODERS}


@pytest.mark.parametrize("name", list(DECODERS))
def test_three_formats_agree_with_transformers(name: str, decoder_folder: Folder, tmp_path: Path) -> None:
    """`export` raises where a comparison fails; what it must not do is compare nothing."""
    result = exporters.export(decoder_folder(name), "text-generation", tmp_path / "bundle", recipes=RECIPES[name])
    assert {row.status for row in result.rows} == {"passed"}
    assert set(result.artifacts) == {f"{f}/{r}" for f in ("onnx", "tflite", "coreml") for r in RECIPES[name]}
    for artifact_id in result.artifacts:
        compared = {(row.entry_point, row.metric) for row in result.rows if row.artifact == artifact_id}
        scoring = "verify" if artifact_id.startswith("tflite/") else "score"
        assert {entry for entry, _ in compared} >= {"decode", "prefill", scoring, "greedy"}


@pytest.fixture(scope="module")
def bundle(decoder_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("llama") / "bundle"
    return exporters.export(decoder_folder("llama"), "text-generation", output, recipes=("fp32",)).bundle


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "tflite/fp32", "coreml/fp32"])
def test_all_formats_write_the_same(artifact_id: str, bundle: Path, decoder: Callable[[str], Any]) -> None:
    import torch

    backend = "coreml-evaluator" if artifact_id.startswith("coreml") else None
    model = mobile_llm.load(bundle, artifact_id, backend=backend)
    answer = model.generate("hello", max_tokens=12)
    ids = torch.tensor([model.encode("hello")])
    expected = decoder("llama").generate(ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
    expected = expected[0, ids.shape[1] :].tolist()
    ends = expected.index(2) if 2 in expected else len(expected)
    assert list(answer.tokens) == expected[:ends]
    assert answer.prompt_tokens == ids.shape[1]
    model.close()


@pytest.mark.parametrize("format_name", ["onnx", "tflite"])
def test_a_bundle_without_the_entry_is_scored_in_steps(format_name: str, bundle: Path) -> None:
    ids = list(range(5, 25))
    with DecoderEngine.open(bundle, f"{format_name}/fp32", threads=1) as engine:
        at_once = engine.score(ids)
        assert engine.tokens == tuple(ids)
        every = engine.artifact.entry_points.items()
        old = {role: entries for role, entries in every if role not in ("score", "verify")}
        engine.artifact = replace(engine.artifact, entry_points=old)
        engine.rewind(0)
        assert np.abs(engine.score(ids) - at_once).max() < 1e-4
        with pytest.raises(ContextFull, match="50 more tokens do not fit"):
            engine.score([5] * 50)


def test_one_bit_between_verified_tokens_and_steps_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score = DecoderEngine.score
    monkeypatch.setattr(DecoderEngine, "score", lambda *asked: np.nextafter(score(*asked), np.float32(np.inf)))
    opened = Bundle.open(bundle)
    rows = list(check_decoder(opened, "tflite/fp32", read_golden(opened)))
    assert [row.metric for row in rows if row.status == "failed"] == ["difference to steps"]


def test_float16_counts_logits_from_where_the_models_own_lie(
    decoder_folder: Folder, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    import torch

    exporters.export(decoder_folder("llama"), "text-generation", tmp_path / "b", formats=("coreml",), recipes=("fp16",))
    opened = Bundle.open(tmp_path / "b")
    with torch.inference_mode():
        asked = [decoder("llama")(torch.tensor([ids])).logits[0] for ids in read_golden(opened).probes.sequences]
    level = np.median(np.concatenate([logits.numpy().max(-1) for logits in asked])).round()
    path = opened.folder / opened.manifest.artifacts["coreml/fp16"].path
    for function in coreml_reader.read(path).functions.values():
        last = function.ops[-1]
        assert (last.type, last.outputs) == ("add", ("logits",))
        assert function.tensors[last.arguments["y"][0]].read() == level > 1


def test_swift_transformers_finds_the_tokenizers_name(bundle: Path, decoder_folder: Folder) -> None:
    ct = pytest.importorskip("coremltools")
    (specification,) = (bundle / Bundle.open(bundle).manifest.artifacts["coreml/fp32"].path).rglob("model.mlmodel")
    spec = ct.proto.Model_pb2.Model.FromString(specification.read_bytes())
    name = spec.description.metadata.userDefined["co.huggingface.exporters.name"]
    assert name == Bundle.open(bundle).manifest.origin.id == decoder_folder("llama").name


def test_a_conversation_goes_through_the_template(bundle: Path) -> None:
    model = mobile_llm.load(bundle, "onnx/fp32")
    assert model.encode([{"role": "user", "content": "a"}]) == model.encode("<|user|>a<eos><|assistant|>")
    with pytest.raises(InvalidInput, match="a message is a mapping"):
        model.generate(["hello"])
    model.close()


def test_what_does_not_fit_is_refused_and_nothing_is_lost(bundle: Path) -> None:
    model = mobile_llm.load(bundle, "onnx/fp32")
    before = model.generate("hello", max_tokens=4)
    with pytest.raises(ContextFull, match="the prompt has 100 tokens and the context 64"):
        model.generate("x" * 100)
    with pytest.raises(InvalidInput, match="the prompt is empty"):
        model.generate("")
    with pytest.raises(InvalidSpec, match="max_tokens is 0"):
        model.generate("hello", max_tokens=0)
    assert model.generate("hello", max_tokens=4) == before
    assert model.generate("hello", max_tokens=1000).finish in ("stop", "context")
    model.close()


def test_a_finished_bundle_is_compared_again(bundle: Path, decoder_folder: Folder) -> None:
    assert main(["verify", str(bundle), "--json"]) == 0
    assert main(["verify", str(bundle), "--model", str(decoder_folder("llama")), "--json"]) == 0


def test_another_model_than_it_came_from_is_noticed(
    bundle: Path, decoder_folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(bundle), "--model", str(decoder_folder("qwen2")), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert any(row["status"] == "failed" and row["artifact"] == "bundle" for row in rows)


@pytest.mark.parametrize("format_name", ["onnx", "tflite", "coreml"])
def test_an_artifact_that_differs_leaves_no_bundle(
    format_name: str, decoder_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight is written 5 % too large."""
    from exporters.decoders import pipeline

    def scaled(blocks: Any, *given: Any) -> Any:
        blocks.layers[1].feed_forward.down.weight.value[:] *= 1.05
        return written(blocks, *given)

    written = pipeline._write_artifacts
    monkeypatch.setattr(pipeline, "_write_artifacts", scaled)
    with pytest.raises(VerificationFailed, match=rf"{format_name}/fp32 decode: kl"):
        exporters.export(
            decoder_folder("llama"), "text-generation", tmp_path / "bundle", formats=(format_name,), recipes=("fp32",)
        )
    assert not list(tmp_path.iterdir())
