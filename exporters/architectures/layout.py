"""Most encoders are BERT with other names. Such an architecture is one declaration: where its parts are kept, and
what it adds. What departs further (see modernbert.py) describes itself with the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporters.architectures.blocks import (
    Activation,
    Attention,
    Classifier,
    Embeddings,
    EncoderModel,
    FeedForward,
    Pooling,
    Positions,
    PostNormLayer,
)
from exporters.architectures.modules import Reader, activation, require


@dataclass(frozen=True)
class EmbeddingsAt:
    """`offset` is the row of the first position; `projection` leads from the tables' width to the hidden one."""

    words: str = "embeddings.word_embeddings"
    positions: str | None = "embeddings.position_embeddings"
    token_types: str | None = None
    norm: str = "embeddings.LayerNorm"
    projection: str | None = None
    offset: int = 0


@dataclass(frozen=True)
class LayerAt:
    """Paths inside a layer; `activation` is the setting that names the feed-forward block's."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"
    activation: str = "hidden_act"


@dataclass(frozen=True)
class HeadAt:
    """The classifier of a whole text: the first token through `dense` and `activation` to `output`."""

    dense: str = "classifier.dense"
    activation: Activation = "tanh"
    output: str = "classifier.out_proj"


def layers_in_order(config: Any) -> list[str]:
    return [f"encoder.layer.{index}" for index in range(config.num_hidden_layers)]


def no_positions(read: Reader, config: Any, layer: str) -> Positions | None:
    """Nothing inside attention; the scale is the usual one."""
    return None


def usual_scale(config: Any, head_dim: int) -> float:
    return float(head_dim**-0.5)


@dataclass(frozen=True)
class PostNormEncoder:
    """One architecture. `inputs` are the tensors that transformers' tokenizers and clients feed; `covered` are
    settings with the only value that the blocks get right."""

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    embeddings: EmbeddingsAt = EmbeddingsAt()
    layer: LayerAt = LayerAt()
    head: HeadAt = HeadAt()
    layers: Callable[[Any], list[str]] = layers_in_order
    positions: Callable[[Reader, Any, str], Positions | None] = no_positions
    scale: Callable[[Any, int], float] = usual_scale
    covered: Mapping[str, Any] = field(default_factory=dict)

    def describe(self, model: Any, task: str, pooling: Pooling | None) -> EncoderModel:
        """The blocks of a transformers model. Raises UnsupportedModel for a setting that is not covered."""
        config, read = model.config, Reader(model)
        for setting, value in self.covered.items():
            found = getattr(config, setting, value)
            require(found == value, config.model_type, f"{setting}={str(found).lower()}")
        return EncoderModel(
            inputs=self.inputs,
            embeddings=self._embeddings(read),
            layers=tuple(self._layer(read, path, config) for path in self.layers(config)),
            head=pooling or self._classifier(read, task),
            max_length=config.max_position_embeddings - self.embeddings.offset,
        )

    def _embeddings(self, read: Reader) -> Embeddings:
        at = self.embeddings
        return Embeddings(
            words=read.weight(f"{at.words}.weight"),
            positions=read.weight(f"{at.positions}.weight") if at.positions else None,
            token_types=read.weight(f"{at.token_types}.weight") if at.token_types else None,
            norm=read.norm(at.norm),
            position_offset=at.offset,
            projection=read.linear(at.projection) if at.projection and read.has(at.projection) else None,
        )

    def _layer(self, read: Reader, path: str, config: Any) -> PostNormLayer:
        at, head_dim = self.layer, config.hidden_size // config.num_attention_heads
        return PostNormLayer(
            attention=Attention(
                query=read.linear(f"{path}.{at.query}"),
                key=read.linear(f"{path}.{at.key}"),
                value=read.linear(f"{path}.{at.value}"),
                output=read.linear(f"{path}.{at.output}"),
                heads=config.num_attention_heads,
                head_dim=head_dim,
                scale=self.scale(config, head_dim),
                positions=self.positions(read, config, path),
            ),
            attention_norm=read.norm(f"{path}.{at.attention_norm}"),
            feed_forward=FeedForward(
                up=read.linear(f"{path}.{at.up}"),
                activation=activation(getattr(config, at.activation)),
                down=read.linear(f"{path}.{at.down}"),
            ),
            feed_forward_norm=read.norm(f"{path}.{at.feed_forward_norm}"),
        )

    def _classifier(self, read: Reader, task: str) -> Classifier:
        if task == "token-classification":
            return Classifier("each", read.linear("classifier"))
        return Classifier("first", read.linear(self.head.output), read.linear(self.head.dense), self.head.activation)
