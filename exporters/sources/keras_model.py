"""A Keras 3 model, whatever its backend: it is saved, loaded again over Keras' PyTorch backend in a process of its own,
and traced there like a torch module. So one route serves all formats, and the reference stays the model itself, in the
backend it came with.

Not covered: layers written for one backend alone, and custom ones that are not registered with Keras (neither can be
loaded again). Recurrent layers become as many steps as the example inputs have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from exporters.architectures.traced import NamedTensor, Traced
from exporters.sources.module import ModuleSource, Tensors, digest, named_examples
from mobile_llm.errors import InvalidInput, UnsupportedModel

PROGRAM, TENSORS, EXAMPLES, MODEL = "program.pt2", "tensors.json", "examples.npz", "model.keras"
_ERRORS = {"InvalidInput": InvalidInput, "UnsupportedModel": UnsupportedModel}


def open_keras(model: Any, example_inputs: Any) -> ModuleSource:
    """Trace a Keras model. Raises InvalidSpec or InvalidInput for example inputs it does not take, UnsupportedModel
    for a model that Keras' PyTorch backend cannot run or that cannot be traced."""
    examples = named_examples(example_inputs, lambda: input_names(model))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _save(model, folder)
        np.savez(folder / EXAMPLES, **examples)  # type: ignore[arg-type]  # its stubs take the arrays for a flag
        traced = _traced_elsewhere(folder)

    def answer(inputs: Tensors) -> dict[str, np.ndarray]:
        import keras

        results = keras.tree.flatten(model(arranged(model, inputs), training=False))
        return {t.name: keras.ops.convert_to_numpy(value) for t, value in zip(traced.outputs, results)}

    weights = [(weight.path, np.asarray(weight.numpy())) for weight in model.weights]
    architecture = type(model).__name__
    return ModuleSource(
        model.name, f"keras.{architecture}", traced, answer, examples, model.count_params(), digest(weights)
    )


def input_names(model: Any) -> list[str]:
    """`input` for a model with one input, the layers' own names for several."""
    names = [tensor.name for tensor in model.inputs]
    return ["input"] if len(names) == 1 else names


def arranged(model: Any, inputs: Any) -> Any:
    """Named arrays as the model takes them: alone, or as a list in its own order."""
    if len(model.inputs) == 1:
        return next(iter(inputs.values()))
    return [inputs[name] for name in input_names(model)]


def _save(model: Any, folder: Path) -> None:
    try:
        model.save(folder / MODEL)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UnsupportedModel(f"Keras cannot save this model ({error}), and it is exported from a saved one") from None


def _traced_elsewhere(folder: Path) -> Traced:
    """Keras has one backend per process, and this one's is taken."""
    import torch

    environment = {**os.environ, "KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "exporters.sources.keras_worker", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UnsupportedModel(f"Keras' PyTorch backend cannot run this model: {done.stderr.strip()[-300:]}")
    document = json.loads((folder / TENSORS).read_text(encoding="utf-8"))
    if "error" in document:
        raise _ERRORS[document["error"]](document["message"])
    tensors = {side: tuple(map(_tensor, document[side])) for side in ("inputs", "outputs")}
    return Traced(torch.export.load(folder / PROGRAM), tensors["inputs"], tensors["outputs"])


def _tensor(entry: dict[str, Any]) -> NamedTensor:
    return NamedTensor(entry["name"], entry["dtype"], tuple(entry["shape"]))
