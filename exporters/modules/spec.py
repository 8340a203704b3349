"""What is asked for: a model in memory, the tensors it takes, where the bundle goes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporters.spec import FORMATS, RECIPES
from mobile_llm.errors import InvalidSpec

TASK = "tensor"
_EXTRA = 'pip install "mobile-llm[export-modules]"'
# What each format's converter needs beside torch.
_NEEDED = {"onnx": ("onnx", "onnxscript"), "tflite": ("litert_torch",), "coreml": ("coremltools",)}


@dataclass(frozen=True, eq=False)
class ModuleSpec:
    """One export of a `torch.nn.Module` or a Keras model. `example_inputs` are one tensor, several in order, or a
    mapping by name; their types and shapes, other than the batch, are those of the artifacts."""

    model: Any
    example_inputs: Any
    output: Path
    formats: tuple[str, ...] = FORMATS
    recipes: tuple[str, ...] = ("fp32", "int8")
    force: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for what, given, known in (("format", self.formats, FORMATS), ("recipe", self.recipes, RECIPES)):
            unknown = [name for name in given if name not in known]
            if unknown or not given or len(set(given)) < len(given):
                asked = ", ".join(given) or "nothing"
                raise InvalidSpec(f"{asked} is not a choice of {what}s; name some of {', '.join(known)}, each once")
        for name in self.formats:
            missing = [package for package in _NEEDED[name] if find_spec(package) is None]
            if missing:
                raise InvalidSpec(f"{name} from a module needs {missing[0]}: {_EXTRA}, or leave {name} out of formats")


def is_module(model: Any) -> bool:
    """Whether `model` is a torch module or a Keras model rather than a folder's path or a hub id."""
    return is_keras(model) or any(c.__module__.startswith("torch.nn.modules.") for c in type(model).__mro__)


def is_keras(model: Any) -> bool:
    """Told by its class, so that Keras is not imported for what is none."""
    return any(c.__module__.startswith("keras.") and c.__name__ == "Model" for c in type(model).__mro__)
