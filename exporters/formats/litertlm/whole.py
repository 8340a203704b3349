"""Decoders whose caches go in and come out whole, as LiteRT-LM's executor on the CPU expects of a TFLite model:

    decode      tokens, input_pos int32 (1, 1)              -> logits float32 (1, 1, vocabulary)
    prefill_T   tokens, input_pos int32 (1, T); padding 0   -> no logits
    both        kv_cache_k_N, kv_cache_v_N, of one size     -> the same with the new rows in them

Attention is that of the TFLite format, over the cache that came in and the new rows apart; the new rows reach the cache
by operators that nothing else waits for, so that all the rest stays in one piece, and in may be the same memory as out.
A prefill writes its padding too, behind what counts: caches have room for the longest prefill beyond the context, since
an update that does not fit would move over what is there.

`input_pos` is enough: an input `mask`, which LiteRT-LM fills for models that have one, could not say what is in the
cache and what is new, nor keep a window.

Not covered: its executors for NPUs and GPUs, which have other expectations; caches in int8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporters.architectures.decoders.blocks import CausalAttention, DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.formats.tflite.caches import Ends
from exporters.formats.tflite.decoder import Joined, TfliteDecoderBuilder
from exporters.formats.tflite.flatbuffer import Model, Ops, Subgraph, Types
from exporters.formats.tflite.positions import Positions
from exporters.formats.tflite.signatures import FLOAT_ROWS, CacheLayout, Shape, cache_of, chunks
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding

_LAYOUT = FLOAT_ROWS


def write_whole(model: DecoderModel, path: Path, context: int) -> None:
    """A .tflite file with these signatures, for texts of up to `context` tokens."""
    file, joined = Model(), Joined()
    for shape in _shapes(context):
        graph = Subgraph(file, _signature(shape))
        build_decoder(model, _Builder(graph, shape, context, _LAYOUT, joined))
        graph.forget_unasked()
        graph.finish()
    file.save(path)


def entry_points(model: DecoderModel, context: int) -> Mapping[str, tuple[EntryPoint, ...]]:
    decode, *prefills = (_entry(model, shape) for shape in _shapes(context))
    return {"prefill": tuple(prefills), "decode": (decode,)}


def whole_cache(model: DecoderModel, context: int) -> KvCache:
    return replace(cache_of(model, context, _LAYOUT), kind="whole")


class _Builder(TfliteDecoderBuilder):
    def _ends(self, layout: CacheLayout) -> Ends:
        return _WholeEnds(self._nodes, layout, self._shape.cached, self._positions)

    def asked_for(self, hidden: int, added: int) -> tuple[int, int]:
        return hidden, added

    def logits(self, normed: int, model: DecoderModel) -> None:
        if self._shape.rows == 1:
            logits = self._capped_logits(normed, model)
            self._graph.output("logits", self._nodes.reshape(logits, (1, 1, model.vocabulary)))


@dataclass(frozen=True)
class _WholeEnds(Ends):
    """Caches that come out as they came in, with the new rows from the first new position on."""

    positions: Positions
    _inputs: dict[str, int] = field(default_factory=dict)
    _starts: dict[int, int] = field(default_factory=dict)

    def output(self, kind: str, value: int, layer: int) -> None:
        tensor, graph = self.layout.tensors[kind], self.nodes.graph
        axis = 2 + tensor.axes.index("rows")
        shape = list(graph.shape(value))
        shape[axis] = self.cached
        cache = self._cache(tensor.input(layer), shape)
        result = graph.op(Ops.DYNAMIC_UPDATE_SLICE, [cache, value, self._start(axis)], shape)
        graph.output(tensor.input(layer), result)

    def input(self, kind: str, attention: CausalAttention, layer: int) -> int:
        tensor = self.layout.tensors[kind]
        return self._cache(tensor.input(layer), tensor.shape(attention, self.cached))

    def _cache(self, name: str, shape: Sequence[int]) -> int:
        if name not in self._inputs:
            self._inputs[name] = self.nodes.graph.input(name, shape, Types.FLOAT32)
        return self._inputs[name]

    def _start(self, axis: int) -> int:
        """int32 (4,): the first new position along one axis, else 0."""
        if axis not in self._starts:
            along = self.nodes.graph.ints(*(int(i == axis) for i in range(4)))
            self._starts[axis] = self.nodes.binary("Mul", self.positions.first(), along, Types.INT32)
        return self._starts[axis]


def _shapes(context: int) -> tuple[Shape, ...]:
    """Decode first."""
    room = context + max(chunks(context))
    return tuple(Shape(rows, room) for rows in (1, *chunks(context)))


def _signature(shape: Shape) -> str:
    return "decode" if shape.rows == 1 else f"prefill_{shape.rows}"


def _entry(model: DecoderModel, shape: Shape) -> EntryPoint:
    caches = {
        f"{kind}.{index}": TensorBinding(tensor.input(index), tensor.dtype, tensor.shape(layer.attention, shape.cached))
        for index, layer in enumerate(model.layers)
        for kind, tensor in _LAYOUT.tensors.items()
    }
    inputs = {
        "input_ids": TensorBinding("tokens", "int32", (1, shape.rows)),
        "position_ids": TensorBinding("input_pos", "int32", (1, shape.rows)),
        **caches,
    }
    logits = {"logits": TensorBinding("logits", "float32", (1, 1, model.vocabulary))} if shape.rows == 1 else {}
    return EntryPoint(inputs, {**logits, **caches}, signature=_signature(shape))
