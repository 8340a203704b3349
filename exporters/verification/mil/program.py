"""Running one function of a MIL program, operator by operator."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobile_llm.artifacts.graph import Function, Op, Tensor
from mobile_llm.errors import InvalidInput, UnsupportedModel, VerificationFailed

_FLOATS = {"float16", "float32"}


class Program:
    """A function ready to run. Floating-point values are held in float32, whatever they are declared as."""

    def __init__(self, function: Function, float32: bool = False) -> None:
        """With `float32` nothing is rounded to float16. Raises UnsupportedModel for an unknown operator or
        parameter."""
        from exporters.verification.mil.ops import INTERNAL, MOVING, OPS
        from exporters.verification.mil.states import written_in_place

        self._function = function
        self._float32 = float32
        require_known(function)
        self._table = {**OPS, **INTERNAL}
        self._moving = MOVING
        self._constants = {tensor.name: _widened(tensor) for tensor in function.constants()}
        self._ops = written_in_place(self._fold_constants(), function.outputs)
        self._dying = _last_uses(self._ops, function.outputs)

    def new_states(self) -> dict[str, Any]:
        """The program's states as it begins: zeros. Whoever runs it keeps them."""
        from exporters.verification.mil.states import new_states

        return dict(new_states(self._function))

    def run(self, inputs: Mapping[str, np.ndarray], states: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Evaluate, and change `states`. Raises InvalidInput for wrong inputs, VerificationFailed where a value is not
        finite."""
        import torch

        if set(inputs) != set(self._function.inputs):
            raise InvalidInput(f"the program takes {', '.join(self._function.inputs)}, not {', '.join(inputs)}")
        values = {**self._constants, **(self.new_states() if states is None else states)}
        values |= {name: _widened_input(array) for name, array in inputs.items()}
        with torch.inference_mode():
            for place, op in enumerate(self._ops):
                values |= self._evaluate(op, values)
                for name in self._dying.get(place, ()):
                    values.pop(name, None)
        return {name: values[name].numpy() for name in self._function.outputs}

    def _fold_constants(self) -> list[Op]:
        """Evaluate once what depends on constants alone, such as compressed weights; what is left runs each time.
        Integers that have been widened are dropped: nobody asks for them again."""
        left = []
        for op in self._function.ops:
            if all(name in self._constants for name in op.inputs):
                self._constants |= self._evaluate(op, self._constants)
            else:
                left.append(op)
        needed = {name for op in left for name in op.inputs} | set(self._function.outputs)
        self._constants = {name: value for name, value in self._constants.items() if name in needed}
        return left

    def _evaluate(self, op: Op, values: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {parameter: _argument(parameter, names, values) for parameter, names in op.arguments.items()}
        try:
            result = self._table[op.type](**arguments)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise VerificationFailed(f"{op.type} {op.name!r} cannot be evaluated: {reason}") from None
        results = result if isinstance(result, (list, tuple)) else [result]
        return {name: self._rounded(op, name, value) for name, value in zip(op.outputs, results)}

    def _rounded(self, op: Op, name: str, value: Any) -> Any:
        import torch

        dtype = self._function.tensors[name].dtype
        if op.type in self._moving:
            return value
        if dtype in _FLOATS:
            value = value.float() if self._float32 or dtype == "float32" else value.half().float()
            if not _finite(value):
                raise VerificationFailed(f"{op.type} {name!r} gives a value that is not finite in {dtype}")
            return value
        return value.to(getattr(torch, dtype))


def _finite(value: Any) -> bool:
    """A sum that is finite has finite terms; one that is not may have overflowed, and every term is looked at."""
    import torch

    return math.isfinite(value.sum()) or bool(torch.isfinite(value).all())


def require_known(function: Function) -> None:
    """Raise UnsupportedModel for an operator or a parameter of one that the evaluator does not know."""
    from exporters.verification.mil.ops import OPS

    for op in function.ops:
        if op.type not in OPS:
            raise UnsupportedModel(f"the evaluator does not know the MIL operator {op.type!r}")
        known = inspect.signature(OPS[op.type]).parameters
        for parameter in op.arguments:
            if parameter not in known:
                raise UnsupportedModel(f"the evaluator does not know {parameter!r} of the MIL operator {op.type!r}")


def _argument(parameter: str, names: Sequence[str], values: Mapping[str, Any]) -> Any:
    """The parameter `values` takes a list; every other takes one value."""
    found = [values[name] for name in names]
    return found if parameter == "values" else found[0]


def _widened_input(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype.name in _FLOATS else array.dtype))


def _widened(tensor: Tensor) -> Any:
    """A constant: floats in float32, strings as they are."""
    import torch

    array = tensor.read()
    if tensor.dtype == "string":
        return str(array)
    return torch.from_numpy(array.astype(np.float32) if tensor.dtype in _FLOATS else np.array(array))


def _last_uses(ops: Sequence[Op], kept: Sequence[str]) -> dict[int, list[str]]:
    """Values by the operator after which nobody needs them."""
    last = {name: place for place, op in enumerate(ops) for name in op.inputs}
    dying: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in kept:
            dying.setdefault(place, []).append(name)
    return dying
