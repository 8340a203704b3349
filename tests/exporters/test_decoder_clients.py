"""What other clients find beside a decoder in ONNX: settings of onnxruntime-genai and transformers.js, a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.architectures.decoders import describe_decoder
from exporters.decoders.clients import tokenizer_settings
from exporters.formats.onnx import lower_decoder
from exporters.formats.onnx.genai import genai_config, write_genai_config
from exporters.formats.onnx.transformers_js import with_chat_template, with_external_data
from mobile_llm.errors import InvalidSpec

from .test_decoder_onnx import Make, graph_of, write


def test_a_folder_for_onnxruntime_genai(decoder: Make, tmp_path: Path) -> None:
    described = describe_decoder(decoder("llama"))
    lowered = lower_decoder(described, "int4", tmp_path, 48)
    write_genai_config(described, "llama", lowered, {"eos_token_id": [2, 5], "top_k": 20}, tmp_path)
    config = json.loads((tmp_path / "genai_config.json").read_text(encoding="utf-8"))
    assert config["model"]["decoder"]["filename"] == "onnx/model_q4.onnx"
    assert (config["model"]["context_length"], config["model"]["pad_token_id"]) == (48, 2)
    assert (config["search"]["top_k"], config["search"]["do_sample"]) == (20, False)
    assert genai_config(described, "opt", lowered, {"eos_token_id": 2})["model"]["type"] == "decoder"
    with pytest.raises(InvalidSpec, match="needs eos_token_id"):
        genai_config(described, "llama", lowered, {})


def test_a_folder_for_transformers_js(decoder: Make, tmp_path: Path) -> None:
    config = {"model_type": "llama"}
    assert with_external_data(config, tmp_path) == config
    for precision in ("fp32", "int4"):
        write(describe_decoder(decoder("llama")), tmp_path, precision)
    shapes = {
        tensor.shape for tensor in graph_of(tmp_path / "onnx/model.onnx").tensors.values() if "past" in tensor.name
    }
    assert shapes == {("batch_size", 2, "past_sequence_length", 8)}  # of the first name it makes a size, of others 0
    files = with_external_data(config, tmp_path)["transformers.js_config"]["use_external_data_format"]
    assert files == {"model.onnx": 1, "model_q4.onnx": 1}
    assert with_chat_template({}, tmp_path) == {}
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert with_chat_template({"a": 1}, tmp_path) == {"a": 1, "chat_template": "{{ messages }}"}


def test_a_tokenizer_has_the_name_that_other_clients_know(tmp_path: Path) -> None:
    assert tokenizer_settings({"tokenizer_class": "TokenizersBackend"}, tmp_path) == {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    assert tokenizer_settings({"tokenizer_class": "GPT2Tokenizer"}, tmp_path) == {"tokenizer_class": "GPT2Tokenizer"}
