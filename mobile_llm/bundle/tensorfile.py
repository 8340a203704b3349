"""Tensors in the safetensors layout (https://huggingface.co/docs/safetensors): an 8-byte length, a JSON header, raw
data. float32, int32 and int64, which is what golden references and saved caches are made of."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

_NAMES = {"<f4": "F32", "<i4": "I32", "<i8": "I64"}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


_METADATA = "__metadata__"


def pack(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The file's bytes, the same for the same tensors. Integers keep their width, other numbers become float32."""
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    data: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        dtype = next((d for d in ("<i4", "<i8") if tensor.dtype == d), "<f4")
        data.append(np.ascontiguousarray(tensor, dtype).tobytes())
        end = offset + len(data[-1])
        header[name] = {"dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def unpack(data: bytes) -> dict[str, np.ndarray]:
    """The tensors by name. Raises ValueError, KeyError, TypeError or struct.error for what is no such file."""
    header, size = _header(data)
    tensors = {}
    for name, entry in header.items():
        if name == _METADATA:
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        dtype = _TYPES[entry["dtype"]]
        tensors[name] = np.frombuffer(data[start:end], dtype).reshape(entry["shape"])
    return tensors


def read_metadata(data: bytes) -> dict[str, str]:
    """What stands beside the tensors. Raises as `unpack`."""
    return dict(_header(data)[0].get(_METADATA, {}))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    (size,) = struct.unpack_from("<Q", data)
    try:
        return json.loads(data[8 : 8 + size]), size
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
