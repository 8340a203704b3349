"""From a module to a traced program: once with any batch size, and where the module does not allow that, at the shapes
of the example inputs alone.

Not covered: control flow that depends on values, dynamic dimensions other than the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from exporters.architectures.traced import BATCH, LARGEST_BATCH, NamedTensor, Traced
from mobile_llm.errors import InvalidInput, UnsupportedModel

# Of example inputs and of outputs; what all three formats take.
DTYPES = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int64"}
Tensors = Mapping[str, torch.Tensor]


class Flat(torch.nn.Module):
    """Tensors in the order of `names` in, a tuple of tensors out, whatever the module's own conventions are."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)

    def forward(self, *tensors: torch.Tensor) -> tuple[Any, ...]:
        return tuple(pytree.tree_leaves(self.module(**dict(zip(self.names, tensors)))))


def trace(module: torch.nn.Module, examples: Tensors) -> Traced:
    """Trace a module in eval mode. Raises InvalidInput where it does not take the examples, UnsupportedModel where
    its graph depends on values or its outputs are not tensors."""
    answer = _answer(module, examples)
    names = output_names(answer)
    flat = Flat(module, list(examples)).eval()
    program = _any_batch(flat, examples)
    batch: int | str = BATCH
    if program is None:
        program, batch = _fixed(flat, examples), 0
    results = pytree.tree_leaves(answer)
    inputs = tuple(_named(name, tensor, batch) for name, tensor in examples.items())
    return Traced(program, inputs, tuple(_named(name, tensor, batch) for name, tensor in zip(names, results)))


def output_names(answer: Any) -> list[str]:
    """A mapping's keys; `output` for a single tensor, `output_0`, … for several. Raises UnsupportedModel for others."""
    leaves = pytree.tree_leaves(answer)
    wrong = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, torch.Tensor)]
    wrong += [str(leaf.dtype) for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dtype not in DTYPES]
    if wrong or not leaves:
        raise UnsupportedModel(
            f"the model gives {', '.join(wrong) or 'nothing'}; its outputs have to be tensors of float32, int32 or "
            "int64"
        )
    if isinstance(answer, Mapping) and len(leaves) == len(answer):
        return [str(key) for key in answer]
    return ["output"] if len(leaves) == 1 else [f"output_{place}" for place in range(len(leaves))]


def _answer(module: torch.nn.Module, examples: Tensors) -> Any:
    try:
        with torch.inference_mode():
            return module(**{name: tensor.clone() for name, tensor in examples.items()})
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidInput(f"the model does not take the example inputs: {first_line(error)}") from None


def _any_batch(flat: Flat, examples: Tensors) -> Any:
    """A program for every batch size, or None where the inputs do not share one or the module fixes it."""
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in examples.values()}
    if len(sizes) != 1 or 0 in sizes:
        return None
    # A size of one would be traced as a constant.
    wide = {name: torch.cat([t, t]) if t.shape[0] == 1 else t for name, t in examples.items()}
    batch = torch.export.Dim(BATCH, min=1, max=LARGEST_BATCH)
    try:
        program = _export(flat, wide, {"tensors": tuple({0: batch} for _ in wide)})
    except Exception:  # torch.export's errors are of many types; what is wrong in itself fails below once more
        return None
    return program if _batch_leads(program) else None


def _fixed(flat: Flat, examples: Tensors) -> Any:
    try:
        return _export(flat, examples, None)
    except Exception as error:  # of many types, none exported
        raise UnsupportedModel(
            f"the model cannot be traced, since what it does depends on the values of its inputs or is not made of "
            f"tensor operations ({first_line(error)}); rewrite that part with torch.where or fixed loops"
        ) from None


def _export(flat: Flat, examples: Tensors, dynamic: Any) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(flat, tuple(examples.values()), dynamic_shapes=dynamic)


def _batch_leads(program: Any) -> bool:
    """Whether every output's first dimension is the batch, and no other dimension varies."""
    nodes = list(program.graph.nodes)
    output = next(node for node in nodes if node.op == "output")
    given = {node.name: node.meta["val"] for node in nodes if node.op == "placeholder"}
    batch = str(given[program.graph_signature.user_inputs[0]].shape[0])
    shapes = [tuple(node.meta["val"].shape) for node in output.args[0]]
    return all(s and str(s[0]) == batch and all(isinstance(size, int) for size in s[1:]) for s in shapes)


def _named(name: str, tensor: torch.Tensor, batch: int | str) -> NamedTensor:
    shape = tuple(tensor.shape)
    return NamedTensor(name, DTYPES[tensor.dtype], (batch, *shape[1:]) if batch else shape)


def first_line(error: BaseException) -> str:
    """What went wrong, short enough for a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else type(error).__name__
