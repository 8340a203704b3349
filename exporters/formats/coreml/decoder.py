"""The decoder family as a MIL function for iOS 18: any number of new tokens, a batch of one, the cache in states.

Covered: every block of `exporters.architectures.decoders.blocks`. Where products are in float16, what is added up over
the layers and the norms of it are in float32 all the same: the residual of SmolLM2 reaches 22,552, where float16 counts
by 16 and cannot hold a square, and its rounding is most of what float16 costs. Masked scores stay finite. This layout
is for the GPU: on the Neural Engine, which knows no float32, a flexible length runs at its default only, and
`exporters.formats.coreml.fixed` is written instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.blocks import FeedForward, GatedFeedForward
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel, RmsNorm
from exporters.formats.coreml.arithmetic import activated, centred, in_type, root_mean_square, soft_capped
from exporters.formats.coreml.causal import Cache, Timeline, attended
from exporters.formats.coreml.constants import Constants
from exporters.formats.coreml.levels import counting_head, in_float32

KEYS, VALUES = "keyCache", "valueCache"


def last_position(hidden: Any) -> Any:
    """(1, S, H) -> (1, 1, H)."""
    outer, all_axes = [True, False, True], [True, True, True]
    return mb.slice_by_index(x=hidden, begin=[0, -1, 0], end=[0, 0, 0], begin_mask=outer, end_mask=all_axes)


def every_position(hidden: Any) -> Any:
    return hidden


class MilDecoderBuilder:
    """Implements `DecoderBuilder` inside a MIL function whose inputs are `inputIds` (1, S), `causalMask`
    (1, 1, 1, T + 1) and the states; values are its variables, hidden ones (1, S, H): sums and norms in float32,
    products in `dtype`. `asked` chooses positions."""

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
        hidden = _wide(mb.gather(x=self._constants.weight(model.words), indices=self._ids, axis=0))
        if model.embedding_scale != 1:
            hidden = mb.mul(x=hidden, y=np.float32(model.embedding_scale))
        if model.positions is None:
            return hidden
        table = self._constants.weight(model.positions)
        return mb.add(x=hidden, y=_wide(self._timeline.rows(table, model.position_offset)))

    def add_norm(self, hidden: Any, added: Any, norm: AnyNorm) -> tuple[Any, Any]:
        total = mb.add(x=hidden, y=_wide(added))
        return total, self.norm(total, norm)

    def norm(self, hidden: Any, norm: AnyNorm) -> Any:
        if isinstance(norm, RmsNorm):
            return root_mean_square(_wide(hidden), self._constants.exactly(norm.weight.name, norm.gain()), norm.eps)
        gain = self._constants.exactly(norm.weight.name, norm.weight.float32())
        value = root_mean_square(centred(_wide(hidden), -1), gain, norm.eps)
        return mb.add(x=value, y=self._constants.exactly(norm.bias.name, norm.bias.float32())) if norm.bias else value

    def attention(self, normed: Any, attention: CausalAttention, layer: int) -> Any:
        query, key, value = self._split_heads(in_type(normed, self._dtype), attention)
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
        return self._turned(in_type(self.norm(rows, norm), self._dtype) if norm else rows, attention)

    def _turned(self, value: Any, attention: CausalAttention) -> Any:
        return self._timeline.turned(value, attention.rope, self._context) if attention.rope else value

    def _window(self, attention: CausalAttention) -> int | None:
        """None where the whole cache is seen."""
        window = attention.window
        return window if window is not None and window < self._context else None

    def feed_forward(self, normed: Any, feed_forward: FeedForward | GatedFeedForward) -> Any:
        kind, normed = feed_forward.activation, in_type(normed, self._dtype)
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
        whole = self._dtype == np.float32
        head = model.head if whole else counting_head(model)
        logits = self._constants.linear(in_type(normed, self._dtype), head)
        if model.soft_cap is not None:
            logits = soft_capped(logits, model.soft_cap, self._dtype)
        self.outputs["logits"] = mb.identity(x=logits, name="logits") if whole else in_float32(logits, model)


def _wide(value: Any) -> Any:
    return in_type(value, np.float32)
