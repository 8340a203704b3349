"""The decoder family as a MIL function for iOS 18: any number of new tokens, a batch of one, the cache in states.

Covered: every block of `exporters.architectures.decoders.blocks`. Float16 arithmetic is written as such. Safe in it:
norms scale a row by its largest entry before squaring (the residual of SmolLM2 reaches 22,552, whose square float16
cannot hold), and masked scores stay finite. This layout is for the GPU: on the Neural Engine a flexible length runs at
its default only, and `exporters.formats.coreml.fixed` is written instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.blocks import FeedForward, GatedFeedForward
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel, RmsNorm
from exporters.formats.coreml.arithmetic import activated, centred, root_mean_square, soft_capped
from exporters.formats.coreml.causal import Cache, Timeline, attended
from exporters.formats.coreml.constants import Constants

KEYS, VALUES = "keyCache", "valueCache"


def last_position(hidden: Any) -> Any:
    """(1, S, H) -> (1, 1, H)."""
    outer, all_axes = [True, False, True], [True, True, True]
    return mb.slice_by_index(x=hidden, begin=[0, -1, 0], end=[0, 0, 0], begin_mask=outer, end_mask=all_axes)


def every_position(hidden: Any) -> Any:
    return hidden


class MilDecoderBuilder:
    """Implements `DecoderBuilder` inside a MIL function whose inputs are `inputIds` (1, S), `causalMask`
    (1, 1, 1, T + 1) and the states; values are its variables, hidden ones (1, S, H). `asked` chooses positions."""

    def __init__(
        self,
        inputs: Mapping[str, Any],
        constants: Constants,
        dtype: type[np.floating[Any]],
        context: int,
        asked: Callable[[Any], Any],
    ) -> None:
        self._ids = inputs["inputIds"]
        self._dtype = dtype
        self._context = context
        self._asked = asked
        self._constants = constants
        self._timeline = Timeline(self._ids, inputs["causalMask"], self._constants, dtype)
        self._cache = Cache({name: inputs[name] for name in (KEYS, VALUES)}, self._timeline, dtype)
        self.outputs: dict[str, Any] = {}

    def embed(self, model: DecoderModel) -> Any:
        hidden = mb.gather(x=self._constants.weight(model.words), indices=self._ids, axis=0)
        if model.embedding_scale != 1:
            hidden = mb.mul(x=hidden, y=self._dtype(model.embedding_scale))
        if model.positions is None:
            return hidden
        table = self._constants.weight(model.positions)
        return mb.add(x=hidden, y=self._timeline.rows(table, model.position_offset))

    def add_norm(self, hidden: Any, added: Any, norm: AnyNorm) -> tuple[Any, Any]:
        total = mb.add(x=hidden, y=added)
        return total, self.norm(total, norm)

    def norm(self, hidden: Any, norm: AnyNorm) -> Any:
        if isinstance(norm, RmsNorm):
            return self._root_mean_square(hidden, norm.weight.name, norm.gain(), norm.eps)
        value = self._root_mean_square(centred(hidden, -1), norm.weight.name, norm.weight.float32(), norm.eps)
        return mb.add(x=value, y=self._constants.weight(norm.bias)) if norm.bias else value

    def _root_mean_square(self, value: Any, name: str, gain: np.ndarray, eps: float) -> Any:
        return root_mean_square(value, self._constants.named(name, gain), eps, -1, self._dtype)

    def attention(self, normed: Any, attention: CausalAttention, layer: int) -> Any:
        query, key, value = self._split_heads(normed, attention)
        key = self._cache.extended(KEYS, key, layer)
        value = self._cache.extended(VALUES, value, layer)
        groups = attention.heads // attention.kv_heads
        # A key's queries become rows of one product: no key is copied for each of them.
        query = mb.reshape(x=query, shape=[1, attention.kv_heads, -1, attention.head_dim])
        mask = self._timeline.mask(self._window(attention), groups)
        seen = attended(query, key, value, mask, attention, self._dtype)
        seen = mb.reshape(x=seen, shape=[1, attention.heads, -1, attention.head_dim])
        width = attention.heads * attention.head_dim
        joined = mb.reshape(x=mb.transpose(x=seen, perm=[0, 2, 1, 3]), shape=[1, -1, width])
        return self._constants.linear(joined, attention.output)

    def _split_heads(self, normed: Any, attention: CausalAttention) -> list[Any]:
        """Query (1, heads, S, head_dim), key and value (1, kv_heads, S, head_dim), normed and turned."""
        heads, kv_heads = attention.heads, attention.kv_heads
        joined = self._constants.linears(normed, attention.query, attention.key, attention.value)
        rows = mb.reshape(x=joined, shape=[1, -1, heads + 2 * kv_heads, attention.head_dim])
        rows = mb.transpose(x=rows, perm=[0, 2, 1, 3])
        if attention.query_norm is None and attention.key_norm is None:  # both are turned at once
            both, value = mb.split(x=rows, split_sizes=[heads + kv_heads, kv_heads], axis=1)
            return [*mb.split(x=self._turned(both, attention), split_sizes=[heads, kv_heads], axis=1), value]
        query, key, value = mb.split(x=rows, split_sizes=[heads, kv_heads, kv_heads], axis=1)
        query, key = (self._placed(*x, attention) for x in ((query, attention.query_norm), (key, attention.key_norm)))
        return [query, key, value]

    def _placed(self, rows: Any, norm: RmsNorm | None, attention: CausalAttention) -> Any:
        return self._turned(self.norm(rows, norm) if norm else rows, attention)

    def _turned(self, value: Any, attention: CausalAttention) -> Any:
        return self._timeline.turned(value, attention.rope, self._context) if attention.rope else value

    def _window(self, attention: CausalAttention) -> int | None:
        """None where the whole cache is seen."""
        window = attention.window
        return window if window is not None and window < self._context else None

    def feed_forward(self, normed: Any, feed_forward: FeedForward | GatedFeedForward) -> Any:
        kind = feed_forward.activation
        if isinstance(feed_forward, FeedForward):
            expanded = activated(self._constants.linear(normed, feed_forward.up), kind)
        else:
            both = self._constants.linears(normed, feed_forward.gate, feed_forward.up)
            gate, up = mb.split(x=both, num_splits=2, axis=-1)
            expanded = mb.mul(x=activated(gate, kind), y=up)
        return self._constants.linear(expanded, feed_forward.down)

    def asked_for(self, hidden: Any, added: Any) -> tuple[Any, Any]:
        return self._asked(hidden), self._asked(added)

    def logits(self, normed: Any, model: DecoderModel) -> None:
        logits = self._constants.linear(normed, model.head)
        if model.soft_cap is not None:
            logits = soft_capped(logits, model.soft_cap, self._dtype)
        if self._dtype == np.float32:
            self.outputs["logits"] = mb.identity(x=logits, name="logits")
        else:
            self.outputs["logits"] = mb.cast(x=logits, dtype="fp32", name="logits")
