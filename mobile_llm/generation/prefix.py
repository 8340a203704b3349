"""The cache of a prompt's beginning in a file, so that another process need not read it again.

A file in the safetensors layout: the token ids, the cache's rows, and whose they are. Rows mean something to the very
artifact alone that made them, so they are bound to the hashes of its files. The file is trusted as little as any: a
wrong one is refused, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobile_llm.bundle.manifest import Artifact
from mobile_llm.bundle.tensorfile import pack, read_metadata, unpack
from mobile_llm.errors import IntegrityFailed, InvalidInput
from mobile_llm.generation.engine import DecoderEngine

_TOKENS = "tokens"


def save(engine: DecoderEngine, tokens: int, path: Path) -> None:
    """Write the first `tokens` of what the engine has read, beside `path` first. Raises InvalidInput for none and for a
    path that cannot be written, BackendUnavailable."""
    if not tokens:
        raise InvalidInput("there is nothing to save: this conversation has no beginning yet that is sure to stay")
    rows = {name: row.astype(np.float32) for name, row in engine.save_cache(tokens).items()}
    tensors = {_TOKENS: np.array(engine.tokens[:tokens], np.int32), **rows}
    owner = {"artifact": engine.artifact_id, "sha256": identity(engine.artifact), "content": _digest(tensors)}
    try:
        _replace(path, pack(tensors, owner))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror}); choose another place") from None


def restore(engine: DecoderEngine, path: Path) -> int:
    """Make a saved prefix what the engine has read, and give how many tokens it has. Raises InvalidInput for a file
    that cannot be read or that another artifact saved, IntegrityFailed for a damaged one, BackendUnavailable."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); save a prefix first") from None
    try:
        owner, tensors = read_metadata(data), unpack(data)
        whole = owner["content"] == _digest(tensors)
        artifact_id, sha256, ids = owner["artifact"], owner["sha256"], tensors.pop(_TOKENS)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        whole = False
    if not whole:
        raise IntegrityFailed(f"{path.name} is damaged, or no saved prefix; save it again")
    if (artifact_id, sha256) != (engine.artifact_id, identity(engine.artifact)):
        raise InvalidInput(
            f"{path.name} was saved from {artifact_id} of another bundle or export, and this is {engine.artifact_id}; "
            "save it again with this one"
        )
    engine.load_cache(ids.tolist(), tensors)
    return len(ids)


def identity(artifact: Artifact) -> str:
    """One hash for all of an artifact's files."""
    lines = sorted(f"{file.sha256} {file.path}\n" for file in artifact.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """The old file stands until the new one does."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise
