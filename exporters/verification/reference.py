"""The PyTorch model's own answers: as it came in, and as a twin that holds an artifact's weights.

A twin has an artifact's dequantized weights in its layers. Comparing the two isolates errors of conversion from the
loss of quantization, so the limits can be narrow.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from exporters.architectures.blocks import EncoderModel, Pooling
from exporters.held import holding
from exporters.sources.huggingface import HuggingFaceSource
from exporters.verification.probes import spread
from mobile_llm.tasks.token_classification import OUTSIDE
from mobile_llm.tasks.tokenization import Encoded, stack


class Reference:
    """Runs a source's PyTorch model, one sequence at a time so that nothing is padded."""

    def __init__(self, source: HuggingFaceSource) -> None:
        self._source = source

    def outputs(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """float32 `logits` (texts, labels), of some tokens each (texts, n labels), or `sentence_embedding` (texts,
        hidden) and some tokens of `last_hidden_state` (texts, n hidden)."""
        import torch

        with torch.inference_mode():
            rows = [self._one(item) for item in encoded]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    @contextmanager
    def twin(self, model: EncoderModel) -> Iterator[Reference]:
        """While the block runs, the PyTorch model holds the weights of `model`."""
        with holding(self._source.model, model):
            yield self

    def _one(self, item: Encoded) -> dict[str, np.ndarray]:
        import torch

        tensors = _known_inputs(self._source, {name: torch.from_numpy(t) for name, t in stack([item]).items()})
        result = self._source.model(**tensors)
        lengths = [len(item.ids)]
        if self._source.pooling is None:
            logits = result.logits.numpy()
            return {"logits": spread("logits", logits, lengths) if logits.ndim == 3 else logits}
        vector = pool(result.last_hidden_state, tensors["attention_mask"], self._source.pooling)
        hidden = spread("last_hidden_state", result.last_hidden_state.numpy(), lengths)
        return {"sentence_embedding": vector.numpy(), "last_hidden_state": hidden}


def model_word_tags(source: HuggingFaceSource, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """The PyTorch model's label for each word, which is that of its first token; outside where it was cut."""
    import torch

    tagged = []
    for words in sentences:
        encoded = source.tokenizer(
            list(words), is_split_into_words=True, truncation=True, max_length=source.max_length, return_tensors="pt"
        )
        with torch.inference_mode():
            best = source.model(**_known_inputs(source, encoded)).logits[0].argmax(-1).tolist()
        first = {word: i for i, word in reversed(list(enumerate(encoded.word_ids()))) if word is not None}
        tagged.append([source.labels[best[first[i]]] if i in first else OUTSIDE for i in range(len(words))])
    return tagged


def _known_inputs(source: HuggingFaceSource, encoded: Any) -> dict[str, Any]:
    """What the model's forward takes of a tokenizer's tensors."""
    known = inspect.signature(source.model.forward).parameters
    return {name: tensor for name, tensor in encoded.items() if name in known}


def pool(hidden: Any, mask: Any, pooling: Pooling) -> Any:
    """Pooling as sentence-transformers does it: hidden (B, S, H), mask (B, S) -> (B, H)."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling.mode == "cls":
        vector = hidden[:, 0]
    elif pooling.mode == "max":
        vector = hidden.masked_fill(weights == 0, float("-inf")).amax(1)
    else:
        vector = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(vector, dim=-1) if pooling.normalize else vector
