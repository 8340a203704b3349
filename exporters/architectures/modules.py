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
    """Takes modules of `model` by their dotted path, as blocks named by it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def has(self, path: str) -> bool:
        return any(name == path for name, _ in self._model.named_modules())

    def weight(self, path: str) -> Weight:
        """A parameter as a float32 array that shares its memory."""
        parameter = self._model.get_parameter(path)
        return Weight(path, parameter.detach().cpu().float().numpy())

    def linear(self, path: str) -> Linear:
        has_bias = self._model.get_submodule(path).bias is not None
        return Linear(self.weight(f"{path}.weight"), self.weight(f"{path}.bias") if has_bias else None)

    def norm(self, path: str) -> Norm:
        module = self._model.get_submodule(path)
        bias = self.weight(f"{path}.bias") if module.bias is not None else None
        return Norm(self.weight(f"{path}.weight"), bias, float(module.eps))


def activation(name: str) -> Activation:
    """The block's name of an activation. Raises UnsupportedModel for one no format lowers."""
    if name not in _ACTIVATIONS:
        raise UnsupportedModel(f"activation {name!r} is not covered; covered are {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[name]


def require(condition: bool, model_type: str, setting: str) -> None:
    """Refuse a configuration that the blocks would silently get wrong."""
    if not condition:
        raise UnsupportedModel(f"{model_type} with {setting} is not covered")
