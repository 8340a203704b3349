"""LoRA adapters walk in: merged they answer as beside the model, and one of another model is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import exporters
import mobile_llm
from exporters.sources.huggingface import open_source
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import InvalidInput, InvalidSpec, ModelNotFound, UnsupportedModel

GENERATION, CLASSES = "text-generation", "text-classification"
IDS = torch.arange(3, 19)[None]


@pytest.fixture
def adapt(tmp_path: Path) -> Callable[..., tuple[Path, torch.Tensor]]:
    """Saves a random adapter over a folder's model, and says what the two answer side by side."""

    def make(base: Path, task: str = GENERATION, name: str = "adapter", labels: int = 2, **settings: Any) -> Any:
        import peft
        import transformers

        torch.manual_seed(7)
        kinds = {
            GENERATION: (transformers.AutoModelForCausalLM, "CAUSAL_LM", {}),
            CLASSES: (transformers.AutoModelForSequenceClassification, "SEQ_CLS", {"num_labels": labels}),
        }
        loader, kind, more = kinds[task]
        model = loader.from_pretrained(base, ignore_mismatched_sizes=True, dtype=torch.float32, **more)
        wanted = {"r": 4, "target_modules": "all-linear", "task_type": kind, **settings}
        adapted = peft.get_peft_model(model, peft.LoraConfig(**wanted)).eval()
        with torch.no_grad():
            for parameter in (p for p in adapted.parameters() if p.requires_grad):
                parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
            expected = adapted(IDS)[0]
        adapted.save_pretrained(tmp_path / name, save_embedding_layers=False)
        return tmp_path / name, expected

    return make


def _answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS)[0]


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 32}],
    ids=["plain", "rank-stabilized", "dora", "two layers"],
)
def test_merged_it_answers_as_beside_the_model(
    decoder_folder: Callable[[str], Path], adapt: Callable[..., Any], settings: dict[str, Any]
) -> None:
    base = decoder_folder("qwen2")
    adapter, expected = adapt(base, **settings)
    model = open_source(str(base), GENERATION, adapters=[str(adapter)]).model
    assert torch.allclose(_answer(model), expected, atol=1e-4)
    assert not torch.allclose(_answer(model), _answer(open_source(str(base), GENERATION).model), atol=1e-2)


def test_transposed_layers_are_merged_too(decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]) -> None:
    adapter, expected = adapt(decoder_folder("gpt2"), target_modules=["c_attn"], fan_in_fan_out=True)
    model = open_source(str(decoder_folder("gpt2")), GENERATION, adapters=[str(adapter)]).model
    assert torch.allclose(_answer(model), expected, atol=1e-4)


def test_several_are_merged_in_order(decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]) -> None:
    base = decoder_folder("qwen2")
    first, _ = adapt(base, name="first")
    second, _ = adapt(base, name="second", use_dora=True)
    both = open_source(str(base), GENERATION, adapters=[str(first), str(second)])
    alone = open_source(str(base), GENERATION, adapters=[str(first)])
    assert [adapter.id for adapter in both.found.adapters] == ["first", "second"]
    assert not torch.allclose(_answer(both.model), _answer(alone.model), atol=1e-2)


def test_a_gguf_file_takes_an_adapter(
    decoder: Callable[[str], Any], decoder_folder: Callable[[str], Path], adapt: Callable[..., Any], tmp_path: Path
) -> None:
    from gguf import GGMLQuantizationType

    from tests.exporters.gguf_files import write_gguf

    write_gguf(tmp_path / "m.gguf", decoder("llama"), "llama", GGMLQuantizationType.F32)
    adapter, expected = adapt(decoder_folder("llama"))
    model = open_source(str(tmp_path / "m.gguf"), GENERATION, adapters=[str(adapter)]).model
    assert torch.allclose(_answer(model), expected, atol=1e-4)


def test_a_classifier_comes_with_its_head_and_labels(
    classifier_model: Path, adapt: Callable[..., Any], tmp_path: Path
) -> None:
    """The base has a head of three labels, and the adapter one of four."""
    adapter, expected = adapt(classifier_model, CLASSES, labels=4)
    labels = {str(i): name for i, name in enumerate(("a", "b", "c", "d"))}
    (adapter / "config.json").write_text(json.dumps({"id2label": labels}), encoding="utf-8")
    result = exporters.export(
        str(classifier_model), CLASSES, tmp_path / "bundle", ("onnx",), ("fp32",), adapter=adapter
    )
    assert all(row.status != "failed" for row in result.rows)
    manifest = json.loads((result.bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["task"]["labels"] == ["a", "b", "c", "d"]
    assert manifest["origin"]["adapters"] == [
        {"id": "adapter", "weights_sha256": sha256_of(adapter / "adapter_model.safetensors")}
    ]
    assert "With the adapter `adapter` merged" in (result.bundle / "README.md").read_text(encoding="utf-8")
    assert json.loads((result.bundle / "config.json").read_text(encoding="utf-8"))["id2label"] == labels
    model = open_source(str(classifier_model), CLASSES, adapters=[str(adapter)]).model
    assert torch.allclose(_answer(model), expected, atol=1e-4)
    assert mobile_llm.load(result.bundle).classify("a film")[0].label in "abcd"


def test_an_adapter_alone_finds_its_model(decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]) -> None:
    adapter, expected = adapt(decoder_folder("qwen2"))
    assert torch.allclose(_answer(open_source(str(adapter), GENERATION).model), expected, atol=1e-4)
    _set(adapter, base_model_name_or_path="somebody/model")
    with pytest.raises(ModelNotFound, match=r"'somebody/model', which is no folder here; .* export MODEL --adapter"):
        open_source(str(adapter), GENERATION)


def test_one_of_another_model_is_refused_before_weights_are_read(
    decoder_folder: Callable[[str], Path], adapt: Callable[..., Any], tmp_path: Path
) -> None:
    adapter, _ = adapt(decoder_folder("qwen2"), target_modules=["q_proj"])
    bases = {name: _without_weights(decoder_folder(name), tmp_path / name) for name in ("gpt2", "qwen3")}
    with pytest.raises(InvalidInput, match=r"does not fit the model \(Target modules"):
        open_source(str(bases["gpt2"]), GENERATION, adapters=[str(adapter)])
    with pytest.raises(InvalidInput, match=r"q_proj\.lora_B\.weight of shape \(32, 4\), and .* it would be \(64, 4\)"):
        open_source(str(bases["qwen3"]), GENERATION, adapters=[str(adapter)])


def test_tensors_must_be_those_of_the_settings(
    decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]
) -> None:
    base = decoder_folder("qwen2")
    adapter, _ = adapt(base)
    _set(adapter, target_modules=["q_proj"])
    with pytest.raises(InvalidInput, match="has tensors that the model has no place for"):
        open_source(str(base), GENERATION, adapters=[str(adapter)])
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v for k, v in tensors.items() if "layers.0.self_attn.q" in k}, adapter / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match=r"lacks tensors for its target modules \(.*layers\.1"):
        open_source(str(base), GENERATION, adapters=[str(adapter)])


def test_no_number_is_merged(decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]) -> None:
    adapter, _ = adapt(decoder_folder("qwen2"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="cannot be merged"):
        open_source(str(decoder_folder("qwen2")), GENERATION, adapters=[str(adapter)])


def test_weights_that_two_layers_share_are_not_adapted(
    decoder_folder: Callable[[str], Path], adapt: Callable[..., Any]
) -> None:
    """Llama's fixture has one table for words in and out; merging changes both, and the adapter was beside one."""
    adapter, _ = adapt(decoder_folder("llama"), target_modules=["lm_head"])
    with pytest.raises(UnsupportedModel, match="adapts weights that two layers share"):
        open_source(str(decoder_folder("llama")), GENERATION, adapters=[str(adapter)])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"peft_type": "IA3"}, UnsupportedModel, "of the kind IA3"),
        ({"task_type": "SEQ_CLS"}, InvalidInput, "made for text-classification, and the task is text-generation"),
        ({"layer_replication": [[0, 2]]}, UnsupportedModel, "sets layer_replication"),
        ({"init_lora_weights": "pissa"}, UnsupportedModel, "began from pissa"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    decoder_folder: Callable[[str], Path],
    adapt: Callable[..., Any],
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    adapter, _ = adapt(decoder_folder("qwen2"))
    _set(adapter, **settings)
    with pytest.raises(error, match=message):
        open_source(str(decoder_folder("qwen2")), GENERATION, adapters=[str(adapter)])


def test_damage_is_one_sentence_and_leaves_nothing(
    decoder_folder: Callable[[str], Path],
    adapt: Callable[..., Any],
    tmp_path: Path,
    answer: Callable[..., tuple[int, str, str]],
) -> None:
    adapter, _ = adapt(decoder_folder("qwen2"))

    def said() -> str:
        code, _, message = answer(
            "export", str(decoder_folder("qwen2")), "--task", GENERATION, "--adapter", str(adapter),
            "-o", str(tmp_path / "out"), "--dry-run",
        )  # fmt: skip
        assert (code, "\n" in message, (tmp_path / "out").exists()) == (2, False, False)
        return message

    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "adapter_model.safetensors is damaged or cut short" in said()
    weights.rename(adapter / "adapter_model.bin")
    assert "pickled and is not opened" in said()
    (adapter / "adapter_config.json").write_text("[]", encoding="utf-8")
    assert "has no adapter_model.safetensors" in said()
    shutil.rmtree(adapter)
    assert "has no adapter_config.json" in said()


def test_a_module_in_memory_takes_none() -> None:
    with pytest.raises(InvalidSpec, match=r"leave out task, .* and adapter"):
        exporters.export(torch.nn.Linear(2, 2), output="x", example_inputs=torch.rand(1, 2), adapter="somewhere")


def _set(adapter: Path, **settings: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")


def _without_weights(base: Path, copy: Path) -> Path:
    """A folder whose weights would make every load fail: their header alone is right."""
    shutil.copytree(base, copy)
    path = copy / "model.safetensors"
    save_file({"nothing": torch.zeros(1)}, path)
    return copy
