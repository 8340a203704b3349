"""`python -m exporters.sources.keras_worker FOLDER`: traces FOLDER/model.keras over Keras' PyTorch backend at the
shapes of FOLDER/examples.npz, and leaves the program, and what its tensors are called, beside them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from exporters.sources.keras_model import EXAMPLES, MODEL, PROGRAM, TENSORS, arranged
from exporters.sources.tracing import first_line, trace
from mobile_llm.errors import InvalidInput, UnsupportedModel


class _Named(torch.nn.Module):
    """A Keras model called with its inputs by name. Its variables are this module's parameters, so that they stay
    parameters in a trace: those that Keras reads from its own objects would become constants."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = (model,)  # out of torch's sight
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        values = [torch.nn.Parameter(variable.value.detach(), requires_grad=False) for variable in variables]
        self.values = torch.nn.ParameterList(values)

    def forward(self, **inputs: torch.Tensor) -> Any:
        (model,) = self._model
        values, trained = list(self.values), len(model.trainable_variables)
        answer, _ = model.stateless_call(values[:trained], values[trained:], arranged(model, inputs), training=False)
        return answer


def main(folder: Path) -> None:
    with np.load(folder / EXAMPLES) as stored:
        examples = {name: torch.from_numpy(stored[name]) for name in stored.files}
    try:
        model = _load(folder / MODEL)
        traced = trace(_Named(model).eval(), examples)
    except (InvalidInput, UnsupportedModel) as error:
        document: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    else:
        torch.export.save(traced.program, folder / PROGRAM)
        document = {side: [asdict(tensor) for tensor in getattr(traced, side)] for side in ("inputs", "outputs")}
    (folder / TENSORS).write_text(json.dumps(document), encoding="utf-8")


def _load(path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError, ImportError, NotImplementedError) as error:
        raise UnsupportedModel(
            f"Keras cannot load this model over its PyTorch backend ({first_line(error)}); only built-in and "
            "registered layers can be"
        ) from None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
