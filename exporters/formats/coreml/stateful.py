"""A decoder as a package that keeps its cache: a flexible length, states, iOS 18, and two functions over the same
weights. `main` gives logits of every position, `last` those of the last token alone, which for a long prompt and a
large vocabulary is most of the memory.

Physical names and shapes are those that swift-transformers feeds and reads (huggingface/swift-transformers at 0244ff32,
Sources/Models/LanguageModel.swift, `Keys` and `LanguageModelWithStatefulKVCache`; Hugging Face's own Mistral and
Apple's Llama example have the same five): `inputIds` (1, S) int32, its length a range; `causalMask` (1, 1, 1, T + 1)
float16, of which it fills in nothing but the length, one more than the T tokens that the cache holds once the new ones
are in it; the states `keyCache` and `valueCache`; `logits` float32, by the function that is the default (1, S,
vocabulary), of which it reads row S - 1. The program makes the mask itself, windows included. A cache is forgotten from
a token on by saying a smaller T.

fp32 computes in float32, but its cache is float16 too: Core ML has no states of another type.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.formats.coreml.constants import Constants
from exporters.formats.coreml.decoder import KEYS, VALUES, MilDecoderBuilder, every_position, last_position
from exporters.formats.coreml.package import save_package
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding
from mobile_llm.errors import InvalidSpec, UnsupportedModel

EVERY, LAST = "main", "last"
MINIMUM = {"coreml": "8", "ios": "18.0", "macos": "15.0"}


def write(model: DecoderModel, precision: str, bundle: Path, context: int) -> Lowered:
    """See `exporters.formats.coreml.lower_decoder`."""
    cache = cache_of(model, context)
    path = f"coreml/{precision}.mlpackage"
    dtype = np.float32 if precision == "fp32" else np.float16
    save_package(_program(model, cache, dtype), ct.target.iOS18, bundle / path)
    entries = {
        "prefill": (_entry(model, context, LAST, "sequence"),),
        "decode": (_entry(model, context, LAST, 1),),
        "score": (_entry(model, context, EVERY, "sequence"),),
    }
    return Lowered(path, entries, MINIMUM, cache)


def cache_of(model: DecoderModel, context: int) -> KvCache:
    """The states of all layers. Raises InvalidSpec and UnsupportedModel as `exporters.formats.coreml.lower_decoder`."""
    if context > model.context:
        raise InvalidSpec(f"a context of {context} tokens: the model was made for {model.context}, ask for fewer")
    shapes = {(layer.attention.kv_heads, layer.attention.head_dim) for layer in model.layers}
    if len(shapes) > 1:
        raise UnsupportedModel(f"one state holds all layers, and theirs differ: (heads, numbers) {sorted(shapes)}")
    ((kv_heads, head_dim),) = shapes
    return KvCache("state", len(model.layers), kv_heads, head_dim, "float16", context)


def _program(model: DecoderModel, cache: KvCache, dtype: type[np.floating[Any]]) -> Any:
    program = Program()
    arrays: dict[str, np.ndarray] = {}
    for name, asked in ((EVERY, every_position), (LAST, last_position)):
        program.add_function(name, _function(model, cache, Constants(dtype, arrays), dtype, asked))
    program.default_function_name = EVERY
    program.export_as_multifunction = True
    return program


def _function(
    model: DecoderModel,
    cache: KvCache,
    constants: Constants,
    dtype: type[np.floating[Any]],
    asked: Callable[[Any], Any],
) -> Any:
    length, total = get_new_symbol(), get_new_symbol()
    state = (cache.layers, 1, cache.kv_heads, cache.context, cache.head_dim)
    inputs = {
        "inputIds": mb.placeholder((1, length), types.int32),
        "causalMask": mb.placeholder((1, 1, 1, total), types.fp16),
        **{name: mb.state_tensor_placeholder(state, types.fp16) for name in (KEYS, VALUES)},
    }
    with Function(inputs, opset_version=ct.target.iOS18) as function:
        builder = MilDecoderBuilder(function.inputs, constants, dtype, cache.context, asked)
        build_decoder(model, builder)
        function.set_outputs(list(builder.outputs.values()))
    lengths, totals = ct.RangeDim(1, cache.context, default=1), ct.RangeDim(2, cache.context + 1, default=2)
    ids = ct.TensorType("inputIds", shape=(1, lengths), dtype=np.int32)
    mask = ct.TensorType("causalMask", shape=(1, 1, 1, totals), dtype=np.float16)
    function.set_input_types((ids, mask))
    return function


def _entry(model: DecoderModel, context: int, function: str, length: int | str) -> EntryPoint:
    lengths = {length: (1, context)} if isinstance(length, str) else {}
    inputs = {
        "input_ids": TensorBinding("inputIds", "int32", (1, length), lengths),
        "causal_mask": TensorBinding("causalMask", "float16", (1, 1, 1, "total"), {"total": (2, context + 1)}),
    }
    shape = (1, length if function == EVERY else 1, model.vocabulary)
    return EntryPoint(inputs, {"logits": TensorBinding("logits", "float32", shape)}, function)
