"""Most decoders are Llama with other names. Such an architecture is one declaration: where its parts are kept, and
what it adds. What departs further describes itself with the same blocks (see gpt2.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from exporters.architectures.blocks import Activation, FeedForward, GatedFeedForward, Linear
from exporters.architectures.decoders.blocks import (
    AnyNorm,
    CausalAttention,
    DecoderLayer,
    DecoderModel,
    RmsNorm,
    Rope,
)
from exporters.architectures.modules import Reader, activation, require


@dataclass(frozen=True)
class LayerAt:
    """Paths inside a layer. `fused_attention` and `fused_feed_forward` hold query, key and value, or gate and up."""

    attention: str = "self_attn"
    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"
    output: str = "o_proj"
    fused_attention: str | None = None
    query_norm: str | None = None
    key_norm: str | None = None
    attention_norm: str = "input_layernorm"
    after_attention: str | None = None
    feed_forward_norm: str = "post_attention_layernorm"
    after_feed_forward: str | None = None
    gate: str | None = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    fused_feed_forward: str | None = None
    activation: str = "hidden_act"


def never_windowed(config: Any, layer: int) -> int | None:
    return None


def windowed_everywhere(config: Any, layer: int) -> int | None:
    window: int | None = config.sliding_window
    return window


def windowed_by_type(config: Any, layer: int) -> int | None:
    window: int | None = config.sliding_window if config.layer_types[layer] == "sliding_attention" else None
    return window


def one_rope(model: Any, layer: int) -> Rope | None:
    """The same positions in all layers."""
    return rope_of(model.base_model.rotary_emb, "")


def rope_of(rotary: Any, prefix: str) -> Rope:
    """The frequencies of a rotary module, whose buffers may be named after a type of layer. Raises UnsupportedModel
    where they depend on how long a text is."""
    kind = getattr(rotary, "rope_type", "default")
    kind = kind[prefix.removesuffix("_")] if isinstance(kind, dict) else kind
    require(kind in ("default", "linear", "llama3", "yarn"), "a decoder", f"rope_type={kind}")
    frequencies = getattr(rotary, f"{prefix}inv_freq").detach().cpu().float().numpy()
    return Rope(frequencies, float(getattr(rotary, f"{prefix}attention_scaling")))


@dataclass(frozen=True)
class Decoder:
    """One architecture. `windows` and `ropes` say what a layer sees and how it is told positions; `covered` are
    settings with the only value that the blocks get right."""

    layers: str = "layers"
    layer: LayerAt = field(default_factory=LayerAt)
    words: str = "embed_tokens"
    positions: str | None = None
    position_offset: int = 0
    final_norm: str = "norm"
    norm_offset: float = 0.0
    windows: Callable[[Any, int], int | None] = never_windowed
    ropes: Callable[[Any, int], Rope | None] = one_rope
    covered: tuple[tuple[str, Any], ...] = ()

    def describe(self, model: Any) -> DecoderModel:
        read, config = Reader(model), model.config
        for setting, value in self.covered:
            found = getattr(config, setting, value)
            require(found == value, config.model_type, f"{setting}={found}")
        words = read.weight(f"{self.words}.weight")
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        return DecoderModel(
            words=words,
            layers=tuple(self._layer(read, model, index) for index in range(config.num_hidden_layers)),
            final_norm=self._norm(read, self.final_norm),
            head=Linear(words) if tied else read.linear("lm_head"),
            context=config.max_position_embeddings,
            embedding_scale=_embedding_scale(model.get_input_embeddings()),
            positions=read.weight(f"{self.positions}.weight") if self.positions else None,
            position_offset=self.position_offset,
            soft_cap=getattr(config, "final_logit_softcapping", None),
        )

    def _layer(self, read: Reader, model: Any, index: int) -> DecoderLayer:
        path, at = f"{self.layers}.{index}", self.layer
        return DecoderLayer(
            attention_norm=self._norm(read, f"{path}.{at.attention_norm}"),
            attention=self._attention(read, model, index, f"{path}.{at.attention}"),
            feed_forward_norm=self._norm(read, f"{path}.{at.feed_forward_norm}"),
            feed_forward=self._feed_forward(read, model.config, path),
            after_attention=self._after(read, path, at.after_attention),
            after_feed_forward=self._after(read, path, at.after_feed_forward),
        )

    def _attention(self, read: Reader, model: Any, index: int, path: str) -> CausalAttention:
        config, at = model.config, self.layer
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        if at.fused_attention:
            sizes = {"query": heads * head_dim, "key": kv_heads * head_dim, "value": kv_heads * head_dim}
            query, key, value = read.split_rows(f"{path}.{at.fused_attention}", **sizes)
        else:
            query, key, value = (read.linear(f"{path}.{name}") for name in (at.query, at.key, at.value))
        return CausalAttention(
            query=query,
            key=key,
            value=value,
            output=read.linear(f"{path}.{at.output}"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=float(read.module(path).scaling),
            rope=self.ropes(model, index),
            query_norm=self._after(read, path, at.query_norm),
            key_norm=self._after(read, path, at.key_norm),
            window=self.windows(config, index),
            soft_cap=getattr(config, "attn_logit_softcapping", None),
        )

    def _feed_forward(self, read: Reader, config: Any, path: str) -> FeedForward | GatedFeedForward:
        at = self.layer
        kind: Activation = activation(getattr(config, at.activation))
        down = read.linear(f"{path}.{at.down}")
        if at.fused_feed_forward:
            gate, up = read.split(f"{path}.{at.fused_feed_forward}", "gate", "up")
            return GatedFeedForward(gate, up, kind, down)
        up = read.linear(f"{path}.{at.up}")
        return (
            GatedFeedForward(read.linear(f"{path}.{at.gate}"), up, kind, down)
            if at.gate
            else FeedForward(up, kind, down)
        )

    def _norm(self, read: Reader, path: str) -> AnyNorm:
        return read.norm(path) if hasattr(read.module(path), "normalized_shape") else self._rms(read, path)

    def _after(self, read: Reader, path: str, name: str | None) -> RmsNorm | None:
        return self._rms(read, f"{path}.{name}") if name else None

    def _rms(self, read: Reader, path: str) -> RmsNorm:
        module = read.module(path)
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
        return RmsNorm(read.weight(f"{path}.weight"), float(eps), self.norm_offset)


def _embedding_scale(embedding: Any) -> float:
    scale = getattr(embedding, "embed_scale", 1.0)
    return float(scale)
