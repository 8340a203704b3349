"""The tensors of a GGUF file in a transformers model, widened to float32.

Names and orders (Llama's queries and keys, Gemma's norms, GPT-2's transposes) are transformers' own knowledge; the file
is read once here, where transformers reads it several times in Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporters.progress import Watch, counted
from exporters.sources.gguf.config import BESIDE, SAID_BY_CONFIG
from exporters.sources.gguf.header import Header, Tensor
from exporters.sources.quiet import quiet
from mobile_llm.errors import InvalidInput, UnsupportedModel


def load_weights(header: Header, config: Any, folder: Path, watch: Watch) -> Any:
    """The model of `config` with the file's weights in float32; how it writes is said in `folder`.

    Raises InvalidInput for tensors of other shapes, UnsupportedModel for tensors that the model has no place for, or
    that the file lacks.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    with quiet(), torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    weights = _read(header, skeleton, watch)
    with quiet():
        model, info = type(skeleton).from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    if info["missing_keys"]:
        raise UnsupportedModel(
            f"{header.path} has no weights for {min(info['missing_keys'])}; take another conversion of the model"
        )
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def read_tensor(header: Header, tensor: Tensor) -> np.ndarray:
    """One tensor in float32, in PyTorch's order of dimensions."""
    import gguf

    quantization = gguf.GGMLQuantizationType(tensor.kind)
    per_block, size = gguf.GGML_QUANT_SIZES[quantization]
    raw = np.fromfile(header.path, np.uint8, tensor.bytes, offset=tensor.start)
    rows = raw.reshape(*tensor.shape[:-1], tensor.shape[-1] // per_block * size)
    return gguf.dequantize(rows, quantization)


def _read(header: Header, skeleton: Any, watch: Watch) -> dict[str, Any]:
    from transformers import modeling_gguf_pytorch_utils as known

    settings = skeleton.config.to_dict()
    processor = known.TENSOR_PROCESSORS.get(header.architecture, known.TensorProcessor)(config=settings)
    names, shapes = known.get_gguf_hf_weights_map(skeleton, processor), _shapes(skeleton)
    found: dict[str, Any] = {}
    for tensor in counted(list(header.tensors.values()), watch, f"reading {header.path.name}: tensors"):
        if tensor.name in SAID_BY_CONFIG:
            continue
        read = processor.process(
            weights=read_tensor(header, tensor),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": found},
        )
        if read.name is not None:  # else the processor has placed it
            _place(header, tensor.name, names.get(read.name), read.weights, shapes, found)
    return found


def _shapes(skeleton: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}


def _place(
    header: Header, name: str, ours: str | None, values: np.ndarray, shapes: dict[str, Any], found: dict[str, Any]
) -> None:
    import torch

    if ours is None:
        raise UnsupportedModel(
            f"{header.path} has a tensor {name}, for which a model made from its settings has no place; {BESIDE}"
        )
    if values.shape != shapes[ours]:
        raise InvalidInput(
            f"{header.path} has {name} of shape {values.shape}, and the model takes {shapes[ours]} there; fetch the "
            "file again, or correct the config.json beside it"
        )
    found[ours] = torch.from_numpy(np.ascontiguousarray(values))
