"""A traced program as TFLite, by litert-torch; weights are then stored as the recipe has them.

Shapes are static: where any batch was traced, the signature `run` takes one row, and the runtime goes row by row.
int8 weights of fully connected layers are multiplied in integers, with activations rounded per row by the kernel.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from exporters.architectures.traced import Traced
from exporters.formats.lowered import Lowered
from mobile_llm.artifacts import read
from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.bundle.manifest import EntryPoint
from mobile_llm.errors import UnsupportedModel

SIGNATURE = "run"
_MINIMUM = {"tflite": "2.17", "android": "6.0", "ios": "12.0"}


def lower(traced: Traced, precision: str, bundle: Path) -> Lowered:
    """Write the program as `bundle/tflite/PRECISION.tflite`."""
    from exporters.formats.tflite.narrow import write_narrow

    path = f"tflite/{precision}.tflite"
    (bundle / path).parent.mkdir(parents=True, exist_ok=True)
    _convert(traced, bundle / path)
    if precision != "fp32":
        write_narrow(bundle / path, traced, precision)
    return Lowered(path, {SIGNATURE: (_entry(traced, bundle / path),)}, _MINIMUM)


def _entry(traced: Traced, path: Path) -> EntryPoint:
    """litert-torch names tensors by their places, and narrows some 64-bit integers: types are the file's own."""
    function = read("tflite", path).functions[SIGNATURE]
    types = {name: function.tensors[tensor].dtype for tensor, name in function.signature.items()}
    sides = []
    for prefix, tensors in (("args", traced.inputs), ("output", traced.outputs)):
        names = [(tensor, f"{prefix}_{place}") for place, tensor in enumerate(tensors)]
        sides.append({tensor.name: tensor.bound(name, types[name], batch=1) for tensor, name in names})
    inputs, outputs = sides
    return EntryPoint(inputs, outputs, signature=SIGNATURE)


def _convert(traced: Traced, path: Path) -> None:
    with _quiet():
        import litert_torch

        try:
            sample = traced.sample(batch=1)
            edge = litert_torch.signature(SIGNATURE, traced.program.module(), sample).convert()
        except Exception as error:  # litert-torch raises whatever its parts do
            lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
            raise UnsupportedModel(f"litert-torch cannot convert this model: {lines[-1][:200]}") from None
        edge.export(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """litert-torch reports each step on stdout, its native half on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), native_stderr_silenced():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
