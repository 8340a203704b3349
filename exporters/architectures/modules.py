"""From torch modules to blocks: weights are views of the parameters, so nothing is copied."""

from __future__ import annotations

from typing import Any

from exporters.architectures.blocks import Activation, Linear, Norm
from exporters.architectures.weights import Weight
from mobile_llm.errors import UnsupportedModel

# What transformers calls the activations our blocks name. "gelu_new" and "gelu_pytorch_tanh" are one formula.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


class Reader:
    """Takes modules of `model` by their dotted path, as blocks named by it. A path is looked for in the base model
    first, then beside it, where heads are."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._modules = {name for name, _ in model.named_modules()}

    def has(self, path: str) -> bool:
        return path in self._modules or f"{self._model.base_model_prefix}.{path}" in self._modules

    def weight(self, path: str) -> Weight:
        """A parameter as a float32 array that shares its memory."""
        module, _, parameter = path.rpartition(".")
        name = f"{self._full(module)}.{parameter}"
        return Weight(name, self._values(name))

    def linear(self, path: str) -> Linear:
        has_bias = self.module(path).bias is not None
        return Linear(self.weight(f"{path}.weight"), self.weight(f"{path}.bias") if has_bias else None)

    def split(self, path: str, *names: str) -> tuple[Linear, ...]:
        """A linear layer that holds several of the same size, one after the other, as so many."""
        rows = len(self.module(path).weight) // len(names)
        return self.split_rows(path, **dict.fromkeys(names, rows))

    def split_rows(self, path: str, **rows: int) -> tuple[Linear, ...]:
        """The same with so many rows for each name."""
        has_bias = self.module(path).bias is not None
        found, first = [], 0
        for name, size in rows.items():
            weight = self._part(path, "weight", name, first, size)
            found.append(Linear(weight, self._part(path, "bias", name, first, size) if has_bias else None))
            first += size
        return tuple(found)

    def norm(self, path: str) -> Norm:
        module = self.module(path)
        bias = self.weight(f"{path}.bias") if module.bias is not None else None
        return Norm(self.weight(f"{path}.weight"), bias, float(module.eps))

    def _part(self, path: str, parameter: str, name: str, first: int, size: int) -> Weight:
        full = self._full(path)
        rows = self._values(f"{full}.{parameter}")[first : first + size]
        return Weight(f"{full}.{name}.{parameter}", rows, fused=(f"{full}.{parameter}", first))

    def _full(self, path: str) -> str:
        based = f"{self._model.base_model_prefix}.{path}"
        return based if based in self._modules else path

    def module(self, path: str) -> Any:
        return self._model.get_submodule(self._full(path))

    def _values(self, name: str) -> Any:
        return self._model.get_parameter(name).detach().cpu().float().numpy()


def activation(name: str) -> Activation:
    """The block's name of an activation. Raises UnsupportedModel for one no format lowers."""
    if name not in _ACTIVATIONS:
        raise UnsupportedModel(f"activation {name!r} is not covered; covered are {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[name]


def require(condition: bool, model_type: str, setting: str) -> None:
    """Refuse a configuration that the blocks would silently get wrong."""
    if not condition:
        raise UnsupportedModel(f"{model_type} with {setting} is not covered")
