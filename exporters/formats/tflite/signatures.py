"""The signatures of a decoder in TFLite, and how the manifest describes them.

`prefill_T` reads up to T tokens into an empty cache, `prefill_T_C` after up to C tokens, `decode_C` one token after up
to C; `verify_T_C` is up to T steps of `decode_C` at once, with the same numbers to the last bit, and gives logits of
every row. A runtime drives them by these logical tensors alone:

    input_ids     int32 (1, T): new tokens; behind them padding, any id
    position_ids  int32 (1, T): how many tokens came before each; for padding again the last token's
    last_row      int32 (1,), of a prefill: the row of the last new token, whose logits come out
    key.N         (1, kv_heads, head_dim, C or T)
    value.N       (1, kv_heads, C or T, head_dim)
    logits        float32 (1, vocabulary), of a verify (T, vocabulary)

What comes in and goes out under the same name is a cache: in with C places, place j of the token at position j, finite
numbers in all others; out with the T new places, of which the runtime writes those before the padding into its cache,
behind what is there. Rotary tables, masks and sliding windows are in the file.

Not covered: several sequences at once, caches of windowed layers that hold no more than their window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporters.architectures.decoders.blocks import CausalAttention, DecoderModel
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding

# A prefill of so many tokens at once. Two lengths only: each signature that is open costs 50 ms and 7 MB of 135M.
_CHUNKS = (32, 128)
# As many as are verified at once when tokens are guessed. Of 135M in 4 bits on x86 twelve rows take 3.2 steps of one
# token, eight 2.9, four 2.4 (its kernels take as long for 4 rows as for 14); in int8 twelve 2.1 and eight 2.0.
_VERIFIED = (12,)
_SMALLEST_CACHE = 256
_DTYPE = "float32"  # of caches


@dataclass(frozen=True)
class Shape:
    """`rows` new tokens after at most `cached` tokens in the cache; 0 for a signature without one. `verifies`: each as
    a step of one token would read it, with logits of every row."""

    rows: int
    cached: int
    verifies: bool = False

    @property
    def role(self) -> str:
        return "verify" if self.verifies else "decode" if self.rows == 1 else "prefill"

    @property
    def signature(self) -> str:
        if self.verifies:
            return f"verify_{self.rows}_{self.cached}"
        if self.rows == 1:
            return f"decode_{self.cached}"
        return f"prefill_{self.rows}_{self.cached}" if self.cached else f"prefill_{self.rows}"


@dataclass(frozen=True)
class CacheTensor:
    """A part of a cache, float32. Physical names follow LiteRT-LM; `axes` names the sizes between kv_heads and the
    end."""

    name: str
    axes: tuple[Literal["head_dim", "rows"], ...]

    def input(self, layer: int) -> str:
        return f"kv_cache_{self.name}_{layer}"

    def output(self, layer: int) -> str:
        return f"kv_slice_{self.name}_{layer}"

    def shape(self, attention: CausalAttention, rows: int) -> tuple[int, ...]:
        sizes = {"head_dim": attention.head_dim, "rows": rows}
        return (1, attention.kv_heads, *(sizes[axis] for axis in self.axes))


# What is kept of a token, by logical name
ROWS: Mapping[str, CacheTensor] = {
    "key": CacheTensor("k", ("head_dim", "rows")),
    "value": CacheTensor("v", ("rows", "head_dim")),
}


def shapes(context: int) -> tuple[Shape, ...]:
    """Every signature of a decoder for `context` tokens: caches double up to it."""
    caches = _caches(context)
    prefills = (Shape(chunk, cached) for cached in (0, *caches) for chunk in chunks(context))
    verifying = (Shape(rows, cached, verifies=True) for cached in caches for rows in _below(context, _VERIFIED))
    return (*(Shape(1, cached) for cached in caches), *prefills, *verifying)


def chunks(context: int) -> tuple[int, ...]:
    """How many tokens are read at once."""
    return _below(context, _CHUNKS)


def entry_points(model: DecoderModel, context: int) -> Mapping[str, tuple[EntryPoint, ...]]:
    """By role, in the order of `shapes`."""
    found: dict[str, list[EntryPoint]] = {"prefill": [], "decode": [], "verify": []}
    for shape in shapes(context):
        found[shape.role].append(_entry(model, shape))
    return {role: tuple(entries) for role, entries in found.items()}


def cache_of(model: DecoderModel, context: int) -> KvCache:
    attention = model.layers[0].attention
    return KvCache("rows", len(model.layers), attention.kv_heads, attention.head_dim, _DTYPE, context)


def _below(context: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(count for count in counts if count < context) or (context,)


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
    if shape.role == "prefill":
        inputs["last_row"] = TensorBinding("last_row", "int32", (1,))
    outputs = {"logits": TensorBinding("logits", "float32", (shape.rows if shape.verifies else 1, model.vocabulary))}
    for index, layer in enumerate(model.layers):
        for kind, tensor in ROWS.items():
            if shape.cached:
                size = tensor.shape(layer.attention, shape.cached)
                inputs[f"{kind}.{index}"] = TensorBinding(tensor.input(index), _DTYPE, size)
            size = tensor.shape(layer.attention, shape.rows)
            outputs[f"{kind}.{index}"] = TensorBinding(tensor.output(index), _DTYPE, size)
    return EntryPoint(inputs, outputs, signature=shape.signature)
