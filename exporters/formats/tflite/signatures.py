"""The signatures of a decoder in TFLite, and how the manifest describes them.

`prefill_T` reads up to T tokens into an empty cache, `prefill_T_C` after up to C tokens, `decode_C` one token after up
to C. A runtime drives them by these logical tensors alone:

    input_ids     int32 (1, T): new tokens; behind them padding, any id
    position_ids  int32 (1, T): how many tokens came before each; for padding again the last token's
    last_row      int32 (1,), where T > 1: the row of the last new token, whose logits come out
    key.N value.N in: float32 (1, kv_heads, C, head_dim), row j of the token at position j, finite numbers in all others
    key.N value.N out: float32 (1, kv_heads, T, head_dim), the new rows: the runtime writes those before the padding
                  into its cache, behind what is there
    logits        float32 (1, vocabulary)

Rotary tables, masks and sliding windows are in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.architectures.decoders.blocks import DecoderModel
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding

# A prefill of so many tokens at once.
_CHUNKS = (16, 64, 128)
_SMALLEST_CACHE = 256


@dataclass(frozen=True)
class Shape:
    """`rows` new tokens after at most `cached` tokens in the cache; 0 for a signature without one."""

    rows: int
    cached: int

    @property
    def signature(self) -> str:
        if self.rows == 1:
            return f"decode_{self.cached}"
        return f"prefill_{self.rows}_{self.cached}" if self.cached else f"prefill_{self.rows}"


def shapes(context: int) -> tuple[Shape, ...]:
    """Every signature of a decoder for `context` tokens: caches double up to it."""
    caches = _caches(context)
    chunks = tuple(chunk for chunk in _CHUNKS if chunk < context) or (context,)
    prefills = (Shape(chunk, cached) for cached in (0, *caches) for chunk in chunks)
    return (*(Shape(1, cached) for cached in caches), *prefills)


def entry_points(model: DecoderModel, context: int) -> Mapping[str, tuple[EntryPoint, ...]]:
    """By role, in the order of `shapes`."""
    found: dict[str, list[EntryPoint]] = {"prefill": [], "decode": []}
    for shape in shapes(context):
        found["decode" if shape.rows == 1 else "prefill"].append(_entry(model, shape))
    return {role: tuple(entries) for role, entries in found.items()}


def cache_of(model: DecoderModel, context: int) -> KvCache:
    attention = model.layers[0].attention
    return KvCache("rows", len(model.layers), attention.kv_heads, attention.head_dim, "float32", context)


def _caches(context: int) -> tuple[int, ...]:
    found, size = [], _SMALLEST_CACHE
    while size < context:
        found.append(size)
        size *= 2
    return (*found, context)


def _entry(model: DecoderModel, shape: Shape) -> EntryPoint:
    inputs = {
        "input_ids": TensorBinding("tokens", "int32", (1, shape.rows)),
        "position_ids": TensorBinding("input_pos", "int32", (1, shape.rows)),
    }
    if shape.rows > 1:
        inputs["last_row"] = TensorBinding("last_row", "int32", (1,))
    if shape.cached:
        inputs |= _rows(model, "kv_cache", shape.cached)
    outputs = {"logits": TensorBinding("logits", "float32", (1, model.vocabulary))}
    return EntryPoint(inputs, outputs | _rows(model, "kv_slice", shape.rows), signature=shape.signature)


def _rows(model: DecoderModel, prefix: str, rows: int) -> dict[str, TensorBinding]:
    found = {}
    for index, layer in enumerate(model.layers):
        size = (1, layer.attention.kv_heads, rows, layer.attention.head_dim)
        found[f"key.{index}"] = TensorBinding(f"{prefix}_k_{index}", "float32", size)
        found[f"value.{index}"] = TensorBinding(f"{prefix}_v_{index}", "float32", size)
    return found
