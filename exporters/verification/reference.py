"""The PyTorch model's own answers: as it came in, and as a twin that holds an artifact's weights.

A twin has the dequantized weights in its layers and, where a format quantizes activations too, the same
rounding of each linear layer's input. Comparing an artifact with its twin isolates errors of conversion from
the loss of quantization, so the limits can be narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from exporters.architectures.blocks import EncoderModel, Pooling, weights_of
from exporters.quantization.activations import Rounding
from exporters.sources.huggingface import HuggingFaceSource
from mobile_llm.tasks.tokenization import Encoded, stack


class Reference:
    """Runs a source's PyTorch model, one sequence at a time so that nothing is padded."""

    def __init__(self, source: HuggingFaceSource) -> None:
        self._source = source

    def outputs(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """`logits` (texts, labels) or `sentence_embedding` (texts, hidden), float32."""
        import torch

        with torch.inference_mode():
            rows = [self._one(item) for item in encoded]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    @contextmanager
    def twin(self, model: EncoderModel, activations: Rounding | None) -> Iterator[Reference]:
        """While the block runs, the PyTorch model holds the weights of `model` and rounds activations."""
        with ExitStack() as undo:
            for name, weight in weights_of(model).items():
                undo.enter_context(_replaced(self._source.model.get_parameter(name), weight.float32()))
            if activations:
                for module in _linear_layers(self._source.model):
                    undo.callback(_rounding(module, activations).remove)
            yield self

    def _one(self, item: Encoded) -> dict[str, np.ndarray]:
        import torch

        tensors = {name: torch.from_numpy(t) for name, t in stack([item]).items()}
        result = self._source.model(**tensors)
        if self._source.pooling is None:
            return {"logits": result.logits.numpy()}
        vector = pool(result.last_hidden_state, tensors["attention_mask"], self._source.pooling)
        return {"sentence_embedding": vector.numpy()}


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


def _linear_layers(model: Any) -> list[Any]:
    import torch

    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def _rounding(module: Any, activations: Rounding) -> Any:
    return module.register_forward_pre_hook(lambda _, inputs: (activations(inputs[0]), *inputs[1:]))


@contextmanager
def _replaced(parameter: Any, values: np.ndarray) -> Iterator[None]:
    """The parameter's own storage is left alone, since blocks look into it."""
    import torch

    original = parameter.data
    parameter.data = torch.from_numpy(values)
    try:
        yield
    finally:
        parameter.data = original
