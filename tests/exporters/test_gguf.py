"""GGUF files walk in: what they hold comes out to the last bit, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

import exporters
from exporters.plan import make_plan
from exporters.sources.gguf.header import read_header
from exporters.sources.huggingface import load_tokenizer, open_source
from exporters.spec import ExportSpec
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import InvalidInput, InvalidSpec, ModelNotFound, UnsupportedModel
from tests.exporters.gguf_files import TEMPLATE, write_gguf

TASK = "text-generation"
TEXTS = ("the weather", "  two  spaces", "ça va 🙂 漢字", "<bos>the<eos>", "2024\n\n\tthe the")
ARCHITECTURES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


@pytest.fixture(scope="module")
def file(decoder: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in 4 bits."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q4_0.gguf"
    write_gguf(path, decoder("llama"), "llama", Kind.Q4_0)
    return path


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0])
def test_weights_are_those_in_the_file(decoder: Callable[[str], Any], tmp_path: Path, kind: Kind) -> None:
    held = write_gguf(tmp_path / "m.gguf", decoder("llama"), "llama", kind)
    _assert_holds(open_source(str(tmp_path / "m.gguf"), TASK).model, held)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_the_model_it_was(decoder: Callable[[str], Any], tmp_path: Path, name: str) -> None:
    original = copy.deepcopy(decoder(name))
    _scale_by_head(original)
    held = write_gguf(tmp_path / "m.gguf", original, ARCHITECTURES[name], Kind.F32)
    model = open_source(str(tmp_path / "m.gguf"), TASK).model
    _assert_holds(model, held)
    ids = torch.arange(3, 27)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, original(ids).logits, atol=1e-4)


def _scale_by_head(model: Any) -> None:
    """As Gemma does in every size that has a GGUF file of its own scale."""
    for layer in model.model.layers if model.config.model_type.startswith("gemma") else ():
        layer.self_attn.scaling = model.config.head_dim**-0.5


def _assert_holds(model: Any, held: dict[str, Any]) -> None:
    found = model.state_dict()
    assert held.keys() <= found.keys()
    for name, value in held.items():
        assert torch.equal(found[name], torch.from_numpy(value)), name


def test_the_tokenizer_is_that_of_transformers(file: Path) -> None:
    from transformers import AutoTokenizer

    ours = open_source(str(file), TASK).tokenizer
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert [ours(text).input_ids for text in TEXTS] == [theirs(text).input_ids for text in TEXTS]
    assert ours("the weather").input_ids[0] == ours.convert_tokens_to_ids("the")
    assert ours.chat_template == TEMPLATE


def test_a_bundle_says_where_it_comes_from(file: Path, tmp_path: Path) -> None:
    result = exporters.export(str(file), TASK, tmp_path / "bundle", formats=("onnx",), recipes=("fp32",))
    assert all(row.status != "failed" for row in result.rows)
    origin = _manifest(result.bundle)["origin"]
    assert origin["weights_sha256"] == sha256_of(file)
    assert (origin["id"], origin["weights_format"], origin["licence"]) == ("tiny.Q4_0", "gguf", "apache-2.0")
    assert _manifest(result.bundle)["task"]["generation"]["stop"] == [2]
    assert "of the GGUF file" in (result.bundle / "README.md").read_text(encoding="utf-8")
    assert (result.bundle / "chat_template.jinja").read_text(encoding="utf-8") == TEMPLATE


def _manifest(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def test_a_folder_with_one_file_is_that_file(file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path)
    source = open_source(str(tmp_path), TASK)
    assert source.found.id == "tiny.Q4_0"
    assert source.model.config.num_hidden_layers == 2


def test_files_beside_it_win(file: Path, decoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(
        decoder_folder("llama"), tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors")
    )
    shutil.copy(file, tmp_path)
    source = open_source(str(tmp_path), TASK)
    assert source.tokenizer.chat_template == load_tokenizer(decoder_folder("llama")).chat_template
    assert source.found.gguf is not None


def test_small_files_are_gone_with_the_model(file: Path) -> None:
    source = open_source(str(file), TASK)
    folder = source.folder
    assert (folder / "config.json").is_file()
    del source
    assert not folder.exists()


def test_the_plan_reads_the_header_alone(file: Path, decoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    plans = [
        make_plan(ExportSpec(str(model), TASK, tmp_path / "out", formats=("onnx",)))
        for model in (file, decoder_folder("llama"))
    ]
    assert plans[0].parameters == plans[1].parameters
    assert plans[0].artifacts == plans[1].artifacts


def test_positions_scaled_by_a_tensor_need_a_config(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, decoder("llama"), "llama", Kind.F32, **{"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0})
    with pytest.raises(UnsupportedModel, match=r"llama\.rope\.scaling\.type = 'yarn'.*config\.json"):
        make_plan(ExportSpec(str(path), TASK, tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_count": 7}, "block_count = 7, and its tensors have 2"),
        ({"embedding_length": 64}, "embedding_length = 64, and its tensors have 32"),
        ({"context_length": None}, "gives None for llama.context_length"),
        ({"feed_forward_length": 64}, r"ffn_(gate|up|down)\.weight of shape .* and the model takes"),
        ({"attention.head_count": 0}, "gives 0 for llama.attention.head_count"),
    ],
)
def test_settings_must_agree_with_the_tensors(
    decoder: Callable[[str], Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_gguf(tmp_path / "m.gguf", decoder("llama"), "llama", Kind.F32, **changes)
    with pytest.raises(InvalidInput, match=message):
        open_source(str(tmp_path / "m.gguf"), TASK)


def test_a_tensor_without_a_place_is_not_passed_over(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    """Biases that a Llama has no layer for would be lost in silence."""
    write_gguf(tmp_path / "m.gguf", decoder("qwen2"), "llama", Kind.F32)
    with pytest.raises(UnsupportedModel, match=r"blk\.0\.attn_\w\.bias, for which"):
        open_source(str(tmp_path / "m.gguf"), TASK)


def test_unknown_ways_to_cut_text_are_refused(file: Path, tmp_path: Path) -> None:
    damaged = _changed(file, tmp_path, b"gpt-2", b"gpt-9")
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.pre = 'gpt-9'"):
        open_source(str(damaged), TASK)


def test_other_tasks_and_architectures_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="models for text-generation are covered"):
        open_source(str(file), "text-classification")
    other = _changed(file, tmp_path, struct.pack("<Q", 5) + b"llama", struct.pack("<Q", 5) + b"clams")
    with pytest.raises(UnsupportedModel, match="the architecture 'clams'; of GGUF files gemma2"):
        open_source(str(other), TASK)


def test_which_file_is_meant(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="is not there"):
        open_source(str(tmp_path / "none.gguf"), TASK)
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(ModelNotFound, match=r"holds 2 GGUF files; name one of them, such as .*a\.gguf"):
        open_source(str(tmp_path), TASK)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"GGML", "is no GGUF file"),
        (4, struct.pack("<I", 1), "version 1"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**60), "claims 1152921504606846976 tensors"),
        (8, struct.pack("<Q", 23), "cut short"),
        (16, struct.pack("<Q", 60_000), "claims 60000 settings|cut short"),
        (24, struct.pack("<Q", 2**63), "takes 9223372036854775808 bytes"),
    ],
)
def test_a_damaged_header_is_one_sentence(
    file: Path, tmp_path: Path, place: int, value: bytes, message: str, answer: Callable[..., tuple[int, str, str]]
) -> None:
    content = bytearray(file.read_bytes())
    content[place : place + len(value)] = value
    (tmp_path / "m.gguf").write_bytes(content)
    code, kind, said = answer("export", str(tmp_path / "m.gguf"), "--task", TASK, "-o", str(tmp_path / "out"))
    assert (code, kind in ("InvalidInput", "UnsupportedModel")) == (2, True)
    assert re.search(message, said)
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_cut_anywhere_it_is_refused(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for size in (0, 3, 23, 24, 100, 5_000, len(content) // 2, len(content) - 40):
        (tmp_path / "m.gguf").write_bytes(content[:size])
        with pytest.raises(InvalidInput, match="cut short"):
            read_header(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (4 + 16, struct.pack("<I", 99), "tensor type 99, which gguf does not know"),
        (4 + 16, struct.pack("<I", 15), "of the type Q8_K, which cannot be widened"),
        (4 + 20, struct.pack("<Q", 2**40), "outside the file"),
        (4 + 20, struct.pack("<Q", 1), "outside the file"),
        (4 + 20, struct.pack("<Q", 0), "share bytes"),
        (0, struct.pack("<I", 9), "has 9 dimensions"),
        (4, struct.pack("<Q", 2**62), "outside the file"),
        (4, struct.pack("<Q", 0), "has the shape"),
        (4, struct.pack("<Q", 33), "has the shape"),
    ],
)
def test_a_damaged_tensor_is_named(file: Path, tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    content, name = bytearray(file.read_bytes()), b"blk.1.ffn_gate.weight"
    place = content.index(name) + len(name) + offset
    content[place : place + len(value)] = value
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises((InvalidInput, UnsupportedModel), match=message) as caught:
        read_header(tmp_path / "m.gguf")
    assert "blk.1.ffn_gate.weight" in str(caught.value)


def test_random_damage_never_escapes(file: Path, tmp_path: Path) -> None:
    """Whatever happens to the header, it is read or refused by one of our errors."""
    chance, content = random.Random(0), file.read_bytes()
    header = min(tensor.start for tensor in read_header(file).tensors.values())
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(header)] = chance.randrange(256)
        (tmp_path / "m.gguf").write_bytes(damaged)
        try:
            read_header(tmp_path / "m.gguf")
        except (InvalidInput, UnsupportedModel):
            refused += 1
    assert refused > 20


def _changed(file: Path, folder: Path, old: bytes, new: bytes) -> Path:
    path = folder / "changed.gguf"
    path.write_bytes(file.read_bytes().replace(old, new))
    return path


@pytest.mark.slow
@pytest.mark.skipif("SMOLLM2_GGUF" not in os.environ, reason="SMOLLM2_GGUF names no file")
def test_a_real_file_is_what_transformers_makes_of_it() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(os.environ["SMOLLM2_GGUF"])
    source = open_source(str(path), TASK)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    ours = source.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert [source.tokenizer(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]
