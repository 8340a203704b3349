"""GPT-2 keeps its linear layers as `Conv1D`, whose weight is the transpose of a linear layer's."""

from __future__ import annotations

from typing import Any


def as_linear_layers(model: Any) -> Any:
    """The same model with `torch.nn.Linear` in place of every `Conv1D`, in place; the function does not change."""
    from transformers.pytorch_utils import Conv1D

    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, _linear(module))
    return model


def _linear(convolution: Any) -> Any:
    import torch

    linear = torch.nn.Linear(*convolution.weight.shape)
    linear.weight.data = convolution.weight.data.T.contiguous()
    linear.bias.data = convolution.bias.data
    return linear.train(convolution.training)
