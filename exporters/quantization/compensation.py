"""Layers quantized one after the other, each making up for a part of what those before it lost.

Calibration as in `calibrated.py` takes every layer by itself: what the inputs of a later layer have lost by then is not
seen. Here the texts run through the model twice at once, as it is and as it is quantized so far, and a layer is rounded
to give, from the quantized inputs, what it gave from the exact ones: W X ≈ Ŵ X̂, which is GPTQ's own problem for
W (1 + α (X - X̂) X̂ᵀ H⁻¹) with H = X̂ X̂ᵀ (asymmetric calibration: Li et al., arXiv:2504.02692; with a share α: Arai and
Ichikawa, arXiv:2504.09629). All of it, α = 1, fits the texts rather than the model.

On SmolLM2-135M with its dimensions permuted (4 bits, 6 MB of it for layers in 8; 32,768 tokens, of film reviews and its
own), tested on 1,536 tokens of other reviews: a divergence of .058 and 1.050 times the perplexity without, .049 and
1.018 with it. On the manual of a programming language, nothing like the reviews, .059 and 1.041 without, .054 and 1.047
with it.

Tokens weigh alike. Weighed by the root of the squared gradients of a layer's outputs (cut at 30 times their mean), the
divergence in blocks of 64 is .113 instead of .119 on the reviews, .138 instead of .137 on the manual, there with 1.147
times the perplexity instead of 1.136.

Not covered: rounded activations, the head, the table of words, which are as `coarse` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight
from exporters.held import holding, replaced
from exporters.progress import Watch, silent
from exporters.quantization.gptq import damped, quantize_group
from exporters.quantization.hessians import inputs_of, module_of
from exporters.quantization.integers import placed

_SHARE = 0.5  # of what was lost that is made up for

Compute = Callable[[Any], Any]


def compensated(
    torch_model: Any, exact: DecoderModel, coarse: DecoderModel, ids: np.ndarray, watch: Watch = silent
) -> DecoderModel:
    """`coarse` with every layer rounded anew, from the weights of `exact` and in the bits it has. `exact` is what the
    torch model computes. `ids` int64 (windows, length) are run at once."""
    import torch

    walk = _Walk(exact, coarse, watch)
    both = torch.from_numpy(np.concatenate([ids, ids]))
    with holding(torch_model, exact), walk.through(torch_model), torch.inference_mode():
        torch_model.base_model(input_ids=both, use_cache=False)
    return placed(coarse, walk.found)


def bytes_per_token(blocks: DecoderModel) -> int:
    """What a token of `ids` takes in memory, about: a layer's values in float32, twice over."""
    widest = max(weight.shape[1] for group in inputs_of(blocks) for weight in group)
    return 2 * 4 * (8 * blocks.hidden + 3 * widest)


class _Walk:
    """One run over twice as many windows: the exact ones, then the same as they are quantized so far."""

    def __init__(self, exact: DecoderModel, coarse: DecoderModel, watch: Watch) -> None:
        self.found: dict[str, Quantized] = {}
        self._coarse = weights_of(coarse)
        self._words = coarse.words.float32()
        self._groups = list(inputs_of(exact))
        self._watch = watch

    @contextmanager
    def through(self, torch_model: Any) -> Iterator[None]:
        """While the block runs, the table and the linear layers take each half of a batch with its own weights."""
        with ExitStack() as undo:
            table = torch_model.get_input_embeddings()
            undo.enter_context(_computing(table, self._halves(table, self._words)))
            for number, group in enumerate(self._groups, start=1):
                for name in dict.fromkeys(map(module_of, group)):
                    module = torch_model.get_submodule(name)
                    undo.enter_context(_computing(module, self._rounding(module, name, number)))
            yield

    def _halves(self, module: Any, own: np.ndarray) -> Compute:
        """`module` on the first half of a batch; with `own` as its weight on the second."""
        import torch

        forward = type(module).forward

        def compute(inputs: Any) -> Any:
            exact, quantized = inputs.chunk(2)
            with replaced(module.weight, own):
                given = forward(module, quantized)
            return torch.cat([forward(module, exact), given])

        return compute

    def _rounding(self, module: Any, name: str, number: int) -> Compute:
        """The first of the layers of one input that is asked rounds them all."""
        group = self._groups[number - 1]
        own = [weight.name for weight in group if module_of(weight) == name]

        def compute(inputs: Any) -> Any:
            if own[0] not in self.found:
                self._watch(f"rounding layers one after the other, {number} of {len(self._groups)}")
                self._round(group, *inputs.chunk(2))
            return self._halves(module, np.concatenate([self.found[n].dequantized() for n in own]))(inputs)

        return compute

    def _round(self, group: Sequence[Weight], exact: Any, own: Any) -> None:
        """`exact` and `own` (windows, length, in) are what the layers take in each half."""
        exact, own = (half.reshape(-1, half.shape[-1]).float() for half in (exact, own))
        moments = (own.T @ own).numpy() / len(own)
        lost = ((exact - own).T @ own).numpy() / len(own)
        made_up = _SHARE * np.linalg.solve(damped(moments), lost.T).T
        wanted = {weight.name: weight.float32() + weight.float32() @ made_up for weight in group}
        self.found |= quantize_group(wanted, self._coarse, moments)


@contextmanager
def _computing(module: Any, compute: Compute) -> Iterator[None]:
    module.forward = compute
    try:
        yield
    finally:
        del module.forward
