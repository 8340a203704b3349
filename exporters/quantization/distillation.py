"""Scales of integers, and gains of norms, trained together so that the model chooses as it did.

Every other step of calibration judges a layer by what the layer gives. Here the whole model with its integers reads the
texts, and what it says of the next token is brought nearer to what the exact model says: the divergence's gradient
moves every scale and every gain by a factor near 1 (training of the steps alone: Chen et al., "EfficientQAT",
arXiv:2407.11062). Integers stay. One pass over few texts, in small steps: steps of twice the size, and a second pass,
brought the model no nearer on other texts.

On SmolLM2-135M with its dimensions permuted (4 bits, a file of 95 MB), tested on 2,048 tokens of other reviews: a
divergence of .0451 and 1.042 times the perplexity without, .0445 and 1.035 with it; on the manual of a programming
language .0497 and 1.046 without, .0497 and 1.043 with it.

Training integers too does not pay on so few texts. In blocks of 64, all in 4 bits, the divergence on other reviews is
.119 before, .115 with scales and gains trained, .114 if weights need not be integers of any kind, and .18 to 3.3, by
rate, where integers change. (Products were in bfloat16 there.)

Not covered: biases (tried, and worse), rounded activations (tried, and no better), gains of norms in encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.blocks import Norm, map_blocks, weights_of
from exporters.architectures.decoders.blocks import DecoderModel, RmsNorm
from exporters.architectures.weights import Quantized, Weight
from exporters.held import by_parameter
from exporters.progress import Watch, counted, silent
from exporters.quantization.hessians import inputs_of
from exporters.quantization.integers import SMALLEST_SCALE

_TOGETHER = 512  # tokens of a step
_RATE = 5e-4  # by about how much a factor changes in a step, at most
_WARMING = 4  # steps until then
_SEED = 0


def distilled(torch_model: Any, coarse: DecoderModel, ids: np.ndarray, watch: Watch = silent) -> DecoderModel:
    """`coarse` with other scales and gains, nearer to what the torch model computes on sequences `ids` int64 (count,
    length), which are read once."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import kl_div

    factors = _Factors(coarse)
    batches = _batches(ids)
    adam = torch.optim.Adam(factors.logarithms.values(), lr=_RATE, betas=(0.9, 0.95))
    rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: _share_of_rate(step, len(batches)))
    for batch in counted(batches, watch, "training scales and gains"):
        given = {"input_ids": torch.from_numpy(batch), "use_cache": False}
        with torch.no_grad():
            expected = torch_model(**given).logits.log_softmax(-1)
        found = functional_call(torch_model, factors.parameters(), kwargs=given).logits.log_softmax(-1)
        divergence = kl_div(found, expected, log_target=True, reduction="sum") / batch.size
        factors.take(torch.autograd.grad(divergence, list(factors.logarithms.values())))
        adam.step()
        rates.step()
    return factors.applied()


def bytes_needed(model: DecoderModel) -> int:
    """What training takes in memory besides the model and its integers, about: its weights in float32 three times, and
    what a step's tokens leave for the gradients."""
    weights = sum(4 * int(np.prod(weight.shape)) for weight in weights_of(model).values())
    widest = max(weight.shape[1] for group in inputs_of(model) for weight in group)
    a_token = 4 * (6 * model.vocabulary + len(model.layers) * (16 * model.hidden + 6 * widest))
    return 3 * weights + _TOGETHER * a_token


class _Factors:
    """Logarithms of what each scale and each gain of a model is multiplied by, by the weight's name."""

    def __init__(self, model: DecoderModel) -> None:
        import torch

        self._model = model
        self._offsets = _offsets(model)
        self._parameters = by_parameter(model)
        self.logarithms: dict[str, Any] = {
            name: torch.zeros(weight.quantized.scale.shape if weight.quantized else weight.shape, requires_grad=True)
            for name, weight in weights_of(model).items()
            if weight.quantized or name in self._offsets
        }

    def take(self, gradients: Sequence[Any]) -> None:
        for logarithms, gradient in zip(self.logarithms.values(), gradients):
            logarithms.grad = gradient

    def parameters(self) -> dict[str, Any]:
        """The checkpoint's parameters with these factors, which gradients lead back to. Integers are not kept as floats
        until then."""
        import torch
        from torch.utils.checkpoint import checkpoint

        def values(part: Weight) -> Any:
            return checkpoint(self._values, part, use_reentrant=False)

        return {name: torch.cat([values(part) for part in parts]) for name, parts in self._parameters.items()}

    def applied(self) -> DecoderModel:
        def change(block: Any) -> Any:
            known = isinstance(block, Weight) and block.name in self.logarithms
            return replace(block, value=self._applied(block)) if known else block

        return map_blocks(self._model, change)

    def _values(self, weight: Weight) -> Any:
        import torch

        if weight.name not in self.logarithms:
            return torch.from_numpy(weight.float32())
        factors, quantized = self.logarithms[weight.name].exp(), weight.quantized
        if quantized is None:
            offset = self._offsets[weight.name]
            return (torch.from_numpy(weight.float32()) + offset) * factors - offset
        rows, blocks = quantized.scale.shape
        integers = torch.from_numpy(quantized.integers).float().reshape(rows, blocks, quantized.block)
        scale = torch.from_numpy(quantized.scale) * factors
        return (integers * scale[..., None]).reshape(quantized.shape)

    def _applied(self, weight: Weight) -> np.ndarray | Quantized:
        quantized = weight.quantized
        if quantized is None:
            gains: np.ndarray = self._values(weight).detach().numpy()
            return gains
        factors = self.logarithms[weight.name].detach().exp().numpy()
        scale = np.maximum((quantized.scale * factors).astype(np.float16), SMALLEST_SCALE)
        return replace(quantized, scale=scale.astype(np.float32))


def _offsets(model: DecoderModel) -> dict[str, float]:
    """Of every norm's weight what is added to it to be a gain, by its name."""
    found: dict[str, float] = {}

    def note(block: Any) -> Any:
        if isinstance(block, Norm | RmsNorm):
            found[block.weight.name] = block.offset if isinstance(block, RmsNorm) else 0.0
        return block

    map_blocks(model, note)
    return found


def _batches(ids: np.ndarray) -> list[np.ndarray]:
    together = max(1, _TOGETHER // ids.shape[1])
    shuffled = ids[np.random.default_rng(_SEED).permutation(len(ids))]
    return [shuffled[first : first + together] for first in range(0, len(ids), together)]


def _share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARMING) * (1 - step / steps)
