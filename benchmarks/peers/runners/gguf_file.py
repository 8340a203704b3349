"""A Llama of transformers as GGUF: `gguf_file.py MODEL FLOAT` writes it in float32, and for each `NAME FILE` that
follows lets llama.cpp quantize that one.

Runs in llama.cpp's environment. The file holds no tokenizer, since contestants are given ids. Covered: `llama` with
plain rotary positions, weights in safetensors that numpy reads (float32, float16).
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_float(model: Path, file: Path) -> None:
    """Raises ValueError for another architecture than is covered."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    theta = _theta(config)
    writer = gguf.GGUFWriter(file, "llama")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for path in sorted(model.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            count = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
            values = tensor.astype(np.float32)
            writer.add_tensor(_renamed(name), _interleaved(values, count) if count else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(float_file: Path, name: str, file: Path) -> None:
    """By llama.cpp's own mixture of that name, such as Q4_K_M."""
    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.nthread = 1
    wanted.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    unfinished = file.with_suffix(".unfinished")
    if llama_cpp.llama_model_quantize(str(float_file).encode(), str(unfinished).encode(), ctypes.byref(wanted)):
        raise ValueError(f"llama.cpp does not quantize to {name}")
    unfinished.rename(file)


def _theta(config: Mapping[str, Any]) -> float:
    positions = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0)}
    kind = positions.get("rope_type", "default")
    if config["model_type"] != "llama" or kind != "default" or config.get("attention_bias"):
        raise ValueError(f"no GGUF is written of {config['model_type']} with {kind} rotary positions; plain llama is")
    return float(positions["rope_theta"])


def _renamed(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        layer, _, inner = module.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{_NAMES[inner]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns neighbours, transformers the two halves of a head."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main() -> None:
    model, float_file, *wanted = sys.argv[1:]
    if not Path(float_file).exists():
        unfinished = Path(f"{float_file}.unfinished")
        write_float(Path(model), unfinished)
        unfinished.rename(float_file)
    for name, file in zip(wanted[::2], wanted[1::2]):
        if not Path(file).exists():
            quantize(Path(float_file), name, Path(file))


if __name__ == "__main__":
    main()
