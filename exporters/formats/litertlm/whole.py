"""Decoders whose caches go in and come out whole, as LiteRT-LM's executor on the CPU expects of a TFLite model:

    decode      tokens, input_pos int32 (1, 1)              -> logits float32 (1, 1, vocabulary)
    prefill_T   tokens, input_pos int32 (1, T); padding 0   -> no logits
    both        kv_cache_k_N, kv_cache_v_N, of one size     -> the same with the new rows in them

Attention is that of the TFLite format, over the cache that came in and the new rows apart; the new rows reach the cache
by operators that nothing else waits for, so that all the rest stays in one piece, and in may be the same memory as out.
A prefill reads every token as a step would, to the last bit (`tflite/stepped.py`): LiteRT-LM cuts a prompt into chunks
in its own way, and where activations are rounded to integers its text would depend on it. A prefill writes its padding
too, behind what counts: caches have room for the longest prefill beyond the context, since an update that does not fit
would move over what is there.

`input_pos` is enough: an input `mask`, which LiteRT-LM fills for models that have one, could not say what is in the
cache and what is new, nor keep a window.

Not covered: its executors for NPUs and GPUs, which have other expectations; caches in int8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporters.architectures.decoders.blocks import CausalAttention, DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.formats.tflite.caches import Caches, with_rows
from exporters.formats.tflite.decoder import Stacked, TfliteDecoderBuilder
from exporters.formats.tflite.flatbuffer import Model, Ops, Subgraph, Types
from exporters.formats.tflite.nodes import Nodes
from exporters.formats.tflite.positions import Positions
from exporters.formats.tflite.signatures import CacheTensor, Shape, cache_of, chunks
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding

_KINDS = ("key", "value")
_LAYOUT = {kind: CacheTensor(kind[0], ("rows", "head_dim")) for kind in _KINDS}


def write_whole(model: DecoderModel, path: Path, context: int) -> None:
    """A .tflite file with these signatures, for texts of up to `context` tokens."""
    file, stacks = Model(), Stacked()
    for shape in _shapes(context):
        graph = Subgraph(file, _signature(shape))
        build_decoder(model, _Builder(graph, shape, context, stacks))
        graph.forget_unasked()
        graph.finish()
    file.save(path)


def entry_points(model: DecoderModel, context: int) -> Mapping[str, tuple[EntryPoint, ...]]:
    decode, *prefills = (_entry(model, shape) for shape in _shapes(context))
    return {"prefill": tuple(prefills), "decode": (decode,)}


def whole_cache(model: DecoderModel, context: int) -> KvCache:
    return replace(cache_of(model, context), kind="whole")


class _Builder(TfliteDecoderBuilder):
    def _caches(self) -> Caches:
        along = self._graph.ints(0, 0, 1, 0)
        start = self._nodes.binary("Mul", self._positions.first(), along, Types.INT32)
        if self._shape.verifies:
            return _WrittenCaches(self._nodes, self._shape.cached, start, self._positions)
        return _WholeCaches(self._nodes, self._shape.cached, start)

    def asked_for(self, hidden: int, added: int) -> tuple[int, int]:
        return hidden, added

    def logits(self, normed: int, model: DecoderModel) -> None:
        if self._shape.rows == 1:
            logits = self._capped_logits(normed, model)
            self._graph.output("logits", self._nodes.reshape(logits, (1, 1, model.vocabulary)))


class _WholeCaches:
    """Implements `Caches`: (1, kv_heads, cached, head_dim), which come out as they came in but for the new rows from
    `start` on, int32 (4,). Keys lie as values do: how many tokens there is room for, LiteRT-LM reads off one axis."""

    def __init__(self, nodes: Nodes, cached: int, start: int) -> None:
        self.nodes, self.cached, self.start = nodes, cached, start
        self._inputs: dict[str, int] = {}

    def keep(self, key: int, value: int, layer: int) -> None:
        for kind, rows in (("key", key), ("value", value)):
            _, heads, _, head_dim = self.nodes.graph.shape(rows)
            cache = self._cache(kind, layer, heads, head_dim)
            operands, shape = [cache, rows, self.start], self.nodes.graph.shape(cache)
            updated = self.nodes.graph.op(Ops.DYNAMIC_UPDATE_SLICE, operands, shape)
            self.nodes.graph.output(_LAYOUT[kind].input(layer), updated)

    def scores(self, query: int, attention: CausalAttention, layer: int) -> int:
        return self.nodes.matmul(query, self.rows("key", attention, layer), transpose=True)

    def weighted(self, chances: int, attention: CausalAttention, layer: int) -> int:
        return self.nodes.matmul(chances, self.rows("value", attention, layer))

    def rows(self, kind: str, attention: CausalAttention, layer: int) -> int:
        """Those that came in."""
        return self._cache(kind, layer, attention.kv_heads, attention.head_dim)

    def _cache(self, kind: str, layer: int, heads: int, head_dim: int) -> int:
        name = _LAYOUT[kind].input(layer)
        if name not in self._inputs:
            self._inputs[name] = self.nodes.graph.input(name, (1, heads, self.cached, head_dim), Types.FLOAT32)
        return self._inputs[name]


class _WrittenCaches(_WholeCaches):
    """What attention sees of them has the new rows in their places already, but for the last, which no other reads."""

    def __init__(self, nodes: Nodes, cached: int, start: int, positions: Positions) -> None:
        super().__init__(nodes, cached, start)
        self._positions = positions
        self._new: dict[str, int] = {}

    def keep(self, key: int, value: int, layer: int) -> None:
        super().keep(key, value, layer)
        self._new = {"key": key, "value": value}

    def rows(self, kind: str, attention: CausalAttention, layer: int) -> int:
        _, places = self._positions.written(attention.kv_heads)
        return with_rows(self.nodes, super().rows(kind, attention, layer), self._new[kind], places)


def _shapes(context: int) -> tuple[Shape, ...]:
    """Decode first."""
    room = context + max(chunks(context))
    return (Shape(1, room), *(Shape(rows, room, verifies=True) for rows in chunks(context)))


def _signature(shape: Shape) -> str:
    return "decode" if shape.rows == 1 else f"prefill_{shape.rows}"


def _entry(model: DecoderModel, shape: Shape) -> EntryPoint:
    caches = {
        f"{kind}.{index}": TensorBinding(tensor.input(index), "float32", tensor.shape(layer.attention, shape.cached))
        for index, layer in enumerate(model.layers)
        for kind, tensor in _LAYOUT.items()
    }
    inputs = {
        "input_ids": TensorBinding("tokens", "int32", (1, shape.rows)),
        "position_ids": TensorBinding("input_pos", "int32", (1, shape.rows)),
        **caches,
    }
    logits = {"logits": TensorBinding("logits", "float32", (1, 1, model.vocabulary))} if shape.rows == 1 else {}
    return EntryPoint(inputs, {**logits, **caches}, signature=_signature(shape))
