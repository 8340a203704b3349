"""What calibration needs to know of a model, gathered by running it on sequences of tokens in float32.

Of each linear layer's input the second moments, H = E[x xᵀ]: an error E in its weights changes its outputs by
tr(E H Eᵀ) on average. Of each output the mean square of its gradient, which weighs these changes: the model's own text
is drawn from its own distribution, so squared gradients of its log-likelihood are Fisher information, and half the sum
over outputs is how far the model's distribution moves, as a divergence (to second order, with rows and tokens taken as
independent).

Not covered: gradients of the head's outputs; models whose moments do not fit in memory, which are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporters.architectures.blocks import GatedFeedForward
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Weight
from exporters.progress import Watch, counted, silent
from mobile_llm.errors import NotEnoughMemory
from mobile_llm.machine import available_memory

_TOGETHER = 1024  # tokens of a batch


@dataclass(frozen=True, eq=False)
class Hessians:
    """By the name of a weight (out, in): `inputs`, second moments float32 (in, in), one array for the weights that
    share an input, and `means`, float32 (in,); `outputs`, mean squared gradients float32 (out,), per token, of all but
    the head."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]


def gather_hessians(
    model: Any, blocks: DecoderModel, written: np.ndarray, read: np.ndarray, watch: Watch = silent
) -> Hessians:
    """Run the torch model of `blocks` on sequences int64 (count, length): what it has `written` itself, and what it
    `read`s. Both weigh the same in the inputs' moments; gradients are of the former. Raises NotEnoughMemory."""
    gathering = _Gathering(model, blocks)
    for ids in counted(_batches(written), watch, "calibrating on the model's own text"):
        gathering.add(ids, share=len(ids) / len(written) / 2, gradients=True)
    for ids in counted(_batches(read), watch, "calibrating on the given text"):
        gathering.add(ids, share=len(ids) / len(read) / 2)
    return gathering.found()


def inputs_of(blocks: DecoderModel) -> Iterator[tuple[Weight, ...]]:
    """The weights of the layers' products, those that share an input together."""
    for layer in blocks.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        yield attention.query.weight, attention.key.weight, attention.value.weight
        yield (attention.output.weight,)
        gate = (feed_forward.gate.weight,) if isinstance(feed_forward, GatedFeedForward) else ()
        yield (*gate, feed_forward.up.weight)
        yield (feed_forward.down.weight,)


class _Gathering:
    """Sums over batches, taken by hooks on the modules that hold the weights."""

    def __init__(self, model: Any, blocks: DecoderModel) -> None:
        import torch

        self._model = model
        layers = list(inputs_of(blocks))
        self._groups = [*layers, (blocks.head.weight,)]
        self._takers = [model.get_submodule(module_of(group[0])) for group in layers] + [model.get_output_embeddings()]
        _refuse_what_cannot_fit(self._groups)
        widths = [group[0].shape[1] for group in self._groups]
        self._inputs = [torch.zeros(width, width) for width in widths]
        self._means = [torch.zeros(width) for width in widths]
        modules = dict.fromkeys(module_of(weight) for group in layers for weight in group)
        self._outputs = {module: torch.zeros(len(model.get_submodule(module).weight)) for module in modules}

    def add(self, ids: np.ndarray, share: float, gradients: bool = False) -> None:
        """Read ids (count, length), which are this share of everything."""
        import torch

        given = torch.from_numpy(ids)
        with self._hooks(share, gradients), torch.set_grad_enabled(gradients):
            if not gradients:
                self._model(input_ids=given, use_cache=False)
                return
            with _first_values(self._model) as first:
                chances = self._model(input_ids=given, use_cache=False).logits[:, :-1].log_softmax(-1)
            likelihood = chances.gather(-1, given[:, 1:, None]).sum()
            torch.autograd.grad(likelihood, first)  # parameters need none; hooks see what passes

    def found(self) -> Hessians:
        inputs = {w.name: total.numpy() for group, total in zip(self._groups, self._inputs) for w in group}
        means = {w.name: total.numpy() for group, total in zip(self._groups, self._means) for w in group}
        outputs = {w.name: self._rows(w) for group in self._groups[:-1] for w in group}
        return Hessians(inputs, outputs, means)

    def _rows(self, weight: Weight) -> np.ndarray:
        first = weight.fused[1] if weight.fused else 0
        rows: np.ndarray = self._outputs[module_of(weight)][first : first + weight.shape[0]].numpy()
        return rows

    @contextmanager
    def _hooks(self, share: float, gradients: bool) -> Iterator[None]:
        with ExitStack() as hooks:
            for taker, total, mean in zip(self._takers, self._inputs, self._means):
                hooks.callback(taker.register_forward_pre_hook(_add_moments(total, mean, share)).remove)
            for name, squares in self._outputs.items() if gradients else ():
                module = self._model.get_submodule(name)
                hooks.callback(module.register_forward_hook(_add_squares(squares, 2 * share)).remove)
            yield


def _add_moments(total: Any, mean: Any, share: float) -> Any:
    def hook(_: Any, given: tuple[Any, ...]) -> None:
        rows = given[0].detach().reshape(-1, len(total)).float()
        total.addmm_(rows.T, rows, alpha=share / len(rows))
        mean.add_(rows.mean(0), alpha=share)

    return hook


def _add_squares(total: Any, share: float) -> Any:
    def passed(gradient: Any) -> None:
        total.add_(gradient.reshape(-1, len(total)).float().square().mean(0), alpha=share)

    def hook(_: Any, given: Any, output: Any) -> None:
        output.register_hook(passed)

    return hook


@contextmanager
def _first_values(model: Any) -> Iterator[list[Any]]:
    """What the words are looked up as, from which gradients are asked for."""
    first: list[Any] = []
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, given, output: first.append(output.requires_grad_()))
    try:
        yield first
    finally:
        handle.remove()


def module_of(weight: Weight) -> str:
    parameter = weight.fused[0] if weight.fused else weight.name
    return parameter.rpartition(".")[0]


def _batches(ids: np.ndarray) -> list[np.ndarray]:
    together = max(1, _TOGETHER // ids.shape[1])
    return [ids[first : first + together] for first in range(0, len(ids), together)]


def _refuse_what_cannot_fit(groups: Sequence[tuple[Weight, ...]]) -> None:
    needed = sum(4 * group[0].shape[1] ** 2 for group in groups)
    free = available_memory()
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"calibrating this model takes {needed / 1e6:,.0f} MB of memory for the moments of its layers' inputs, and "
            f"{free / 1e6:,.0f} MB are free; close other programs, or leave out the calibration"
        )
