"""A plain torch module and the tensors it takes. The module itself is left as it is: a copy is put in eval mode, so
that no dropout gets into an artifact or its reference."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporters.architectures.traced import Traced
from mobile_llm.errors import InvalidSpec, UnsupportedModel

Tensors = Mapping[str, np.ndarray]
TYPES = ("float32", "int32", "int64")


@dataclass(frozen=True, eq=False)
class ModuleSource:
    """A model that walked in: `traced` is what the formats write, `answer` asks the model itself, which is the
    reference of every comparison."""

    id: str
    architecture: str
    traced: Traced
    answer: Callable[[Tensors], dict[str, np.ndarray]]
    examples: Tensors
    parameters: int
    weights_sha256: str


def open_torch(module: Any, example_inputs: Any) -> ModuleSource:
    """Trace a torch module. Raises InvalidSpec or InvalidInput for example inputs it does not take, UnsupportedModel
    for what cannot be traced."""
    import torch

    from exporters.sources.tracing import output_names, trace

    examples = named_examples(example_inputs, lambda: parameter_names(module.forward))
    copied = _in_eval_mode(module)
    traced = trace(copied, {name: torch.from_numpy(array) for name, array in examples.items()})

    def answer(inputs: Tensors) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            result = copied(**{name: torch.from_numpy(np.array(array)) for name, array in inputs.items()})
        leaves = torch.utils._pytree.tree_leaves(result)
        return {name: leaf.numpy() for name, leaf in zip(output_names(result), leaves)}

    name = type(module).__name__
    weights = [(key, value.numpy()) for key, value in copied.state_dict().items()]
    parameters = sum(p.numel() for p in copied.parameters())
    return ModuleSource(name.lower(), name, traced, answer, examples, parameters, digest(weights))


def _in_eval_mode(module: Any) -> Any:
    import torch

    wrong = {str(t.dtype) for t in module.state_dict().values() if t.is_floating_point() and t.dtype != torch.float32}
    if wrong:
        raise UnsupportedModel(f"the module's weights are {', '.join(sorted(wrong))}; convert it: module.float()")
    copied = copy.deepcopy(module).cpu().eval()
    return copied.requires_grad_(False)


def named_examples(example_inputs: Any, names: Callable[[], Sequence[str]]) -> dict[str, np.ndarray]:
    """Example inputs by name: of a mapping its own, of one array or a sequence of arrays those that `names` gives.
    Raises InvalidSpec for what is not arrays of a type that all formats take."""
    if example_inputs is None or (isinstance(example_inputs, (tuple, list, Mapping)) and not example_inputs):
        raise InvalidSpec(
            "a model in memory needs example_inputs: a tensor, a tuple of tensors or a mapping of names to tensors, "
            "such as exporters.export(module, example_inputs=torch.rand(2, 300), output=…)"
        )
    if isinstance(example_inputs, Mapping):
        return {str(name): _array(str(name), value) for name, value in example_inputs.items()}
    values = list(example_inputs) if isinstance(example_inputs, (tuple, list)) else [example_inputs]
    found = list(names())[: len(values)]
    if len(found) < len(values):
        raise InvalidSpec(f"the model takes {len(found)} inputs, and example_inputs has {len(values)}")
    return {name: _array(name, value) for name, value in zip(found, values)}


def parameter_names(forward: Any) -> list[str]:
    """The names of a function's positional parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in inspect.signature(forward).parameters.items() if p.kind in kinds]


def digest(weights: Sequence[tuple[str, np.ndarray]]) -> str:
    """One sha256 over names, types, shapes and values."""
    found = hashlib.sha256()
    for part in _parts(weights):
        found.update(part)
    return found.hexdigest()


def _parts(weights: Sequence[tuple[str, np.ndarray]]) -> Iterator[bytes]:
    for name, array in weights:
        yield f"{name} {array.dtype} {array.shape}\n".encode()
        yield np.ascontiguousarray(array).tobytes()


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _array(name: str, value: Any) -> np.ndarray:
    if not _is_array(value):
        raise InvalidSpec(f"the example input {name!r} is a {type(value).__name__}; pass a tensor or a numpy array")
    array = np.array(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.name not in TYPES:
        raise InvalidSpec(f"the example input {name!r} is {array.dtype.name}; pass it as {', '.join(TYPES)}")
    if not array.size:
        raise InvalidSpec(f"the example input {name!r} has the shape {array.shape}, which is empty")
    return array
