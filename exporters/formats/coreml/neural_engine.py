"""A decoder as a package for the Neural Engine: two functions of fixed length over the same weights and states, iOS 18.
`prefill_64` reads that many tokens, the last of them padding where there are fewer, and gives the logits after the row
that it is told; `decode` reads one.

No other client loads this layout, so its names are ours where they have to be: `inputIds` (1, S) int32; `position` (1,)
int32, how many tokens the cache holds; `lastRow` (1,) int32; the states `keyCache` and `valueCache`; `logits` (1, 1,
vocabulary) float32. Everything lies in the package, the table of words included. That a state is written at a position
known at run time stays on the Neural Engine, and that functions share it, is what others report (github.com/Anemll/
Anemll and github.com/0seba/coremlmodels do so, with the same shape of state); we have no Mac to see it on.

Not covered: float32, which the Neural Engine does not compute in. Blocks of int4 are written as they are: whether a
phone's Neural Engine reads them, or the system widens them first, its maker does not say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.formats.coreml.constants import Constants
from exporters.formats.coreml.decoder import KEYS, VALUES
from exporters.formats.coreml.fixed import MilFixedBuilder
from exporters.formats.coreml.package import save_package
from exporters.formats.coreml.stateful import MINIMUM, cache_of
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding

CHUNK = 64
_DECODE = "decode"
_ALIGNED = 32  # a state whose dimensions are no multiples of it is refused by the Neural Engine


def write(model: DecoderModel, variant: str, bundle: Path, context: int) -> Lowered:
    """See `exporters.formats.coreml.lower_decoder`."""
    cache = cache_of(model, context)
    path = f"coreml/{variant}.mlpackage"
    chunk = min(CHUNK, context)
    lengths = {f"prefill_{chunk}": chunk, _DECODE: 1}
    save_package(_program(model, cache, lengths), ct.target.iOS18, bundle / path)
    (prefill, decode) = (_entry(model, name, length) for name, length in lengths.items())
    return Lowered(path, {"prefill": (prefill,), "decode": (decode,)}, MINIMUM, cache)


def _program(model: DecoderModel, cache: KvCache, lengths: dict[str, int]) -> Any:
    program = Program()
    arrays: dict[str, np.ndarray] = {}
    for name, length in lengths.items():
        program.add_function(name, _function(model, cache, Constants(np.float16, arrays), length))
    program.default_function_name = _DECODE
    program.export_as_multifunction = True
    return program


def _function(model: DecoderModel, cache: KvCache, constants: Constants, length: int) -> Any:
    rows = -(-cache.context // _ALIGNED) * _ALIGNED
    state = (cache.layers, cache.kv_heads, rows, cache.head_dim)
    inputs = {
        **{b.name: mb.placeholder(b.shape, types.int32) for b in _inputs(length).values()},
        **{name: mb.state_tensor_placeholder(state, types.fp16) for name in (KEYS, VALUES)},
    }
    with Function(inputs, opset_version=ct.target.iOS18) as function:
        builder = MilFixedBuilder(function.inputs, constants, cache)
        build_decoder(model, builder)
        function.set_outputs(list(builder.outputs.values()))
    return function


def _inputs(length: int) -> dict[str, TensorBinding]:
    inputs = {
        "input_ids": TensorBinding("inputIds", "int32", (1, length)),
        "position": TensorBinding("position", "int32", (1,)),
    }
    return inputs if length == 1 else {**inputs, "last_row": TensorBinding("lastRow", "int32", (1,))}


def _entry(model: DecoderModel, function: str, length: int) -> EntryPoint:
    logits = TensorBinding("logits", "float32", (1, 1, model.vocabulary))
    return EntryPoint(_inputs(length), {"logits": logits}, function)
