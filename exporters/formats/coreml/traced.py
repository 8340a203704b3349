"""A traced program as an ML program, by coremltools' converter; weights are then stored as the recipe has them.

fp32 computes in float32, fp16 and int8 in float16; int8 keeps our integers in `constexpr_affine_dequantize`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from exporters.architectures.stored import Integers, is_large
from exporters.architectures.traced import BATCH, LARGEST_BATCH, NamedTensor, Traced
from exporters.formats.coreml import _MINIMUM
from exporters.formats.coreml.quiet import forget_names, load_coremltools, quiet
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import EntryPoint
from mobile_llm.errors import UnsupportedModel

_ERRORS = (NotImplementedError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError)


def lower(traced: Traced, precision: str, bundle: Path) -> Lowered:
    """Write the program as `bundle/coreml/PRECISION.mlpackage`."""
    load_coremltools()
    forget_names()
    import coremltools as ct

    from exporters.formats.coreml.package import save_package

    program, batch = _converted(traced, precision)
    function = program.functions["main"]
    if precision == "int8":
        _keep_integers(function, traced)
    path = f"coreml/{precision}.mlpackage"
    save_package(program, ct.target.iOS16, bundle / path)
    inputs = {t.name: t.bound(name, _narrow(t), batch) for t, name in zip(traced.inputs, function.inputs)}
    outputs = {t.name: t.bound(v.name, _narrow(t), batch) for t, v in zip(traced.outputs, function.outputs)}
    return Lowered(path, {"run": (EntryPoint(inputs, outputs),)}, _MINIMUM)


def _converted(traced: Traced, precision: str) -> tuple[Any, int | None]:
    """A MIL program that coremltools has optimized, and the batch it is fixed to, if it is.

    What the converter cannot read from a `torch.export` program, such as an LSTM, it reads from TorchScript, where
    sizes have become constants: so that takes one row.
    """
    import torch

    with torch.no_grad():
        try:
            return _convert(traced.program.run_decompositions({}), traced, precision, None), None
        except _ERRORS as first:
            try:
                scripted = torch.jit.trace(traced.program.module(), traced.sample(1), check_trace=False)
                return _convert(scripted, traced, precision, 1), 1
            except _ERRORS:
                lines = str(first).strip().splitlines() or [type(first).__name__]
                raise UnsupportedModel(f"coremltools cannot convert this model: {lines[-1][:200]}") from None


def _convert(module: Any, traced: Traced, precision: str, batch: int | None) -> Any:
    import coremltools as ct

    half = precision != "fp32"
    with quiet(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return ct.convert(
            module,
            source="pytorch",
            inputs=[_input(tensor, batch) for tensor in traced.inputs],
            outputs=[ct.TensorType(tensor.name, dtype=_numpy(tensor)) for tensor in traced.outputs],
            convert_to="milinternal",
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16,
        )


def _input(tensor: NamedTensor, batch: int | None) -> Any:
    import coremltools as ct

    rows = batch or ct.RangeDim(1, LARGEST_BATCH, 1)
    return ct.TensorType(
        tensor.name, shape=[rows if size == BATCH else size for size in tensor.shape], dtype=_numpy(tensor)
    )


def _numpy(tensor: NamedTensor) -> Any:
    return np.dtype(_narrow(tensor)).type


def _narrow(tensor: NamedTensor) -> str:
    """Core ML has no 64-bit integers."""
    return "float32" if tensor.dtype == "float32" else "int32"


def _keep_integers(function: Any, traced: Traced) -> None:
    """Constants that hold a quantized weight's values become its integers and scales."""
    from coremltools.converters.mil import Builder as mb

    function._essential_scope_sources = []  # a new operator has no source line, which the writer would insist on
    integers = Integers(traced, np.float16)
    for op in list(function.operations):
        if op.op_type != "const" or not is_large(np.asarray(op.outputs[0].val)):
            continue
        found = integers.find(op.outputs[0].val)
        if found is None:
            continue
        weight, transposed = found
        with function:
            narrow = mb.constexpr_affine_dequantize(
                quantized_data=np.ascontiguousarray(weight.integers.T if transposed else weight.integers),
                zero_point=np.int8(0),
                scale=weight.scale[:, 0].astype(np.float16),
                axis=np.int32(1 if transposed else 0),
                name=f"{op.name}_integers",
                before_op=op,
            )
        function.replace_uses_of_var_after_op(
            anchor_op=op, old_var=op.outputs[0], new_var=narrow, force_replace=True, no_check_var_types=True
        )
        function.remove_ops([op])
