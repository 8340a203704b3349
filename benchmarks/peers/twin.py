"""A model's twin: the same function, its weights in another order.

    python -m benchmarks.peers.twin MODEL TWIN --seed 0

Weights that come off a 4-bit grid lose nothing when they are rounded to it again, which proves nothing. Here the hidden
dimension, each layer's inner dimension and the numbers of each value head are permuted at random, so that no block of
32 is what it was, and what the model writes stays the same but for the order of float sums.

Covered: decoders whose layers are named as Llama's (Mistral, Qwen2, Qwen3, Gemma 2 and 3 too), in safetensors; the twin
is in float32. Not covered: fused projections, other families, adapters.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import MobileLlmError, ModelNotFound, OutputExists, UnsupportedModel

# What each axis of a weight runs along, by the end of its name; None is left as it is.
_HIDDEN, _INNER, _VALUE, _QUERY = "hidden", "inner", "value", "query"
_AXES: Mapping[str, tuple[str | None, ...]] = {
    "embed_tokens.weight": (None, _HIDDEN),
    "lm_head.weight": (None, _HIDDEN),
    "layernorm.weight": (_HIDDEN,),
    "model.norm.weight": (_HIDDEN,),
    "q_norm.weight": (None,),
    "k_norm.weight": (None,),
    "q_proj.weight": (None, _HIDDEN),
    "q_proj.bias": (None,),
    "k_proj.weight": (None, _HIDDEN),
    "k_proj.bias": (None,),
    "v_proj.weight": (_VALUE, _HIDDEN),
    "v_proj.bias": (_VALUE,),
    "o_proj.weight": (_HIDDEN, _QUERY),
    "o_proj.bias": (_HIDDEN,),
    "gate_proj.weight": (_INNER, _HIDDEN),
    "up_proj.weight": (_INNER, _HIDDEN),
    "down_proj.weight": (_HIDDEN, _INNER),
}
_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Shape:
    """Of config.json, what the permutations need."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises UnsupportedModel where config.json does not describe a decoder of this family."""
        try:
            hidden, heads = config["hidden_size"], config["num_attention_heads"]
            head_dim = config.get("head_dim") or hidden // heads
            kv_heads = config.get("num_key_value_heads") or heads
            return cls(hidden, config["intermediate_size"], heads, kv_heads, head_dim, config["num_hidden_layers"])
        except KeyError as error:
            raise UnsupportedModel(f"config.json has no {error}; only decoders built as Llama have a twin") from None


def permuted(weights: Mapping[str, Any], shape: Shape, seed: int) -> dict[str, Any]:
    """The twin's tensors, in float32, by the same names. Raises UnsupportedModel for a name that no rule covers."""
    orders = _orders(shape, seed)
    return {name: _reordered(name, tensor.float(), orders) for name, tensor in weights.items()}


def save_twin(model: Path, twin: Path, seed: int) -> None:
    """Write the twin of the folder `model`, with its tokenizer and settings. Raises ModelNotFound, UnsupportedModel,
    OutputExists."""
    from safetensors.torch import save_file

    if twin.exists():
        raise OutputExists(f"{twin} exists; remove it, or name another folder")
    config = read_json(model / "config.json")
    tensors = permuted(_weights(model), Shape.of(config), seed)
    unfinished = twin.with_name(f"{twin.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(model, unfinished, ignore=shutil.ignore_patterns("*.safetensors*", "*.bin", "*.gguf", ".*"))
    save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
    unfinished.rename(twin)


def _weights(model: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ModelNotFound(f"{model} holds no .safetensors file; save the model again with transformers")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _orders(shape: Shape, seed: int) -> dict[tuple[str, int | None], Any]:
    """By axis and layer; the hidden dimension is that of all layers."""
    import torch

    random = torch.Generator().manual_seed(seed)
    orders: dict[tuple[str, int | None], Any] = {(_HIDDEN, None): torch.randperm(shape.hidden, generator=random)}
    for layer in range(shape.layers):
        orders[_INNER, layer] = torch.randperm(shape.inner, generator=random)
        within = [torch.randperm(shape.head_dim, generator=random) for _ in range(shape.kv_heads)]
        shared = shape.heads // shape.kv_heads  # query heads that read one value head
        orders[_VALUE, layer] = torch.cat([shape.head_dim * i + order for i, order in enumerate(within)])
        orders[_QUERY, layer] = torch.cat([shape.head_dim * i + within[i // shared] for i in range(shape.heads)])
    return orders


def _reordered(name: str, tensor: Any, orders: Mapping[tuple[str, int | None], Any]) -> Any:
    axes = next((axes for end, axes in _AXES.items() if name.endswith(end)), None)
    if axes is None or len(axes) != tensor.ndim:
        raise UnsupportedModel(f"no rule says how {name} is permuted; only decoders built as Llama have a twin")
    found = _LAYER.search(name)
    for place, axis in enumerate(axes):
        if axis is not None:
            layer = int(found[1]) if found and axis != _HIDDEN else None
            tensor = tensor.index_select(place, orders[axis, layer])
    return tensor.contiguous()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("twin", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        save_twin(args.model, args.twin, args.seed)
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
