"""ONNX artifacts, under the names that transformers.js and optimum look for.

float32 and float16 (stored so, computed in float32: CPUs of phones run it everywhere), int8 with dynamic activations
and, of decoders, int4. All shapes are dynamic. A decoder is one graph for prefill and decode, whose large constants lie
beside it.
"""

from __future__ import annotations

from pathlib import Path

from exporters.architectures.blocks import EncoderModel
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.decoders.walk import build_decoder
from exporters.architectures.encoder import build_encoder
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import EntryPoint, KvCache, TensorBinding
from mobile_llm.errors import InvalidSpec, UnsupportedModel

PRECISIONS = ("fp32", "fp16", "int8")
_FILES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
    "int4": "model_q4.onnx",
}
# The first with every contrib operator used here as it is used here; a bias that is broadcast came with 1.20.
_MINIMUM = {"onnxruntime": "1.20", "android": "7.0", "ios": "13.0"}
_DECODER_MINIMUM = {"onnxruntime": "1.23", "android": "7.0", "ios": "15.1"}
_WITH_WINDOWS = {"onnxruntime": "1.24"}  # before it a window did not count the token itself


def lower(model: EncoderModel, precision: str, bundle: Path) -> Lowered:
    """Write `model` below `bundle/onnx`."""
    from exporters.formats.onnx.encoder import OnnxEncoderBuilder
    from exporters.formats.onnx.graph import Graph

    graph = Graph(f"encoder-{precision}")
    build_encoder(model, OnnxEncoderBuilder(graph, model))
    path = f"onnx/{_FILES[precision]}"
    graph.save(bundle / path)
    return Lowered(path, {"encode": (_entry(model),)}, _MINIMUM)


def lower_decoder(model: DecoderModel, precision: str, bundle: Path, context: int) -> Lowered:
    """Write `model` below `bundle/onnx`, for at most `context` tokens. Raises InvalidSpec, UnsupportedModel."""
    from exporters.formats.onnx.decoder import OnnxDecoderBuilder
    from exporters.formats.onnx.graph import Graph

    if not 1 <= context <= model.context:
        raise InvalidSpec(f"a context of {context} tokens is asked for; the model was made for 1 to {model.context}")
    cache = _cache(model, context)
    graph = Graph(f"decoder-{precision}", beside=True)
    # Who asks for 4 bits has a CPU that multiplies bytes.
    build_decoder(model, OnnxDecoderBuilder(graph, context, in_blocks=precision == "int4"))
    path = f"onnx/{_FILES[precision]}"
    graph.save(bundle / path)
    entry = _decoder_entry(model, cache)
    windowed = any(layer.attention.window is not None for layer in model.layers)
    minimum = _DECODER_MINIMUM | (_WITH_WINDOWS if windowed else {})
    entries = {"prefill": (entry,), "decode": (entry,), "score": (_score_entry(entry, model.vocabulary),)}
    return Lowered(path, entries, minimum, cache)


def _cache(model: DecoderModel, context: int) -> KvCache:
    shapes = {(layer.attention.kv_heads, layer.attention.head_dim) for layer in model.layers}
    if len(shapes) > 1:
        raise UnsupportedModel(f"layers with caches of different shapes ({sorted(shapes)}) are not covered")
    ((kv_heads, head_dim),) = shapes
    return KvCache("grown", len(model.layers), kv_heads, head_dim, "float32", context)


def _decoder_entry(model: DecoderModel, cache: KvCache) -> EntryPoint:
    """Prefill and decode are the same: as many new tokens as one likes, and the logits of what follows the last."""
    read = {"sequence": (1, cache.context)}
    ids = TensorBinding("input_ids", "int64", ("batch", "sequence"), read)
    mask = TensorBinding("attention_mask", "int64", ("batch", "total"), {"total": (1, cache.context)})
    logits = TensorBinding("logits", "float32", ("batch", 1, model.vocabulary))
    past, present = (_caches(cache, *of) for of in (("past_key_values", "past"), ("present", "total")))
    return EntryPoint({"input_ids": ids, "attention_mask": mask, **past}, {"logits": logits, **present})


def _score_entry(decode: EntryPoint, vocabulary: int) -> EntryPoint:
    """The same, with logits at as many of the last positions as one likes."""
    kept = TensorBinding("num_logits_to_keep", "int64", ())
    logits = TensorBinding("logits", "float32", ("batch", "kept", vocabulary), decode.inputs["input_ids"].range)
    return EntryPoint({**decode.inputs, "logits_to_keep": kept}, {**decode.outputs, "logits": logits})


def _caches(cache: KvCache, prefix: str, length: str) -> dict[str, TensorBinding]:
    shape = ("batch", cache.kv_heads, length, cache.head_dim)
    sizes = {length: (0, cache.context)}
    places = [(layer, kind) for layer in range(cache.layers) for kind in ("key", "value")]
    return {f"{kind}.{n}": TensorBinding(f"{prefix}.{n}.{kind}", cache.dtype, shape, sizes) for n, kind in places}


def _entry(model: EncoderModel) -> EntryPoint:
    lengths = {"sequence": (1, model.max_length)}
    inputs = {name: TensorBinding(name, "int64", ("batch", "sequence"), lengths) for name in model.inputs}
    return EntryPoint(inputs, {name: TensorBinding(name, "float32", shape) for name, shape in model.outputs.items()})
