"""Decoders in onnxruntime: one graph for prefill and decode, its KV cache in buffers of our own.

Past and present of a layer are the same buffer, into which GroupQueryAttention writes new rows: nothing is copied from
step to step. Buffers begin small and double while a text grows, up to the context; what is forgotten stays in them
until it is written over. A batch of one.

A step's inputs have the shapes and places of the last one's: the mask is as long as the buffers, and how many tokens
there are is the sum of its ones. That and no plans for memory (see `onnx.opened_decoder`) make a step of SmolLM2-135M
in 4 bits 8 % faster.

Prompts are read in chunks: what the layers hold in between is the larger, and the slower to reach, the more tokens are
read at once. Of SmolLM2-135M in 4 bits 512 tokens take 4 % less time than in one go and 1,000 take 14 % less, 24 MB
less after 512, and the logits are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from mobile_llm.backends.rows import check_rows
from mobile_llm.bundle.manifest import Artifact, EntryPoint, KvCache
from mobile_llm.errors import IntegrityFailed

_FIRST_CAPACITY = 256
# Tokens of a prompt that are read at once. Twice as many are as fast or 4 % faster in integers, and take 4 MB more;
# products in float are 15 % faster with them.
_CHUNK, _FLOAT_CHUNK = 64, 128
_FLOATS = ("fp32", "fp16")


class OnnxDecoder:
    """Runs a session whose inputs and outputs are those of `entry`, of the role `score` where the artifact has it, with
    a cache as `cache` describes it. At most `chunk` tokens of a prompt are read at once."""

    def __init__(self, session: ort.InferenceSession, entry: EntryPoint, cache: KvCache, chunk: int) -> None:
        self._session = session
        self._entry = entry
        self._cache = cache
        self._chunk = chunk
        self._position = 0
        self._steps, self._chunks = session.io_binding(), session.io_binding()
        self._mask = np.zeros(cache.context, np.int64)
        self._token = np.zeros(1, np.int64)
        self._logits = np.empty(int(entry.outputs["logits"].shape[-1]), np.float32)
        self._one = np.array(1, np.int64)
        for bound in (self._steps, self._chunks):
            self._bind_last_logits(bound)  # first of the outputs
        self._bind_input(self._steps, "input_ids", self._token, (1, 1))
        self._buffers: dict[str, np.ndarray] = {}
        self._reserve(min(_FIRST_CAPACITY, cache.context))

    @property
    def context(self) -> int:
        return self._cache.context

    @property
    def position(self) -> int:
        return self._position

    def append(self, ids: Sequence[int]) -> np.ndarray:
        self._make_room(len(ids))
        for first in range(0, len(ids), self._chunk):
            chunk = ids[first : first + self._chunk]
            if len(chunk) == 1:
                self._read_token(chunk[0])
            else:
                self._read_chunk(chunk)
        return self._logits.copy()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        self._make_room(len(ids))
        kept = np.array(len(ids), np.int64)
        self._bind_input(self._chunks, "logits_to_keep", kept, ())
        # The file states one row, its default, so that a buffer for more is refused; what onnxruntime allocates is not.
        self._chunks.bind_output(self._entry.outputs["logits"].name)
        try:
            self._read_chunk(ids)
            logits: np.ndarray = self._chunks.get_outputs()[0].numpy()[0]
        finally:
            self._bind_last_logits(self._chunks)
        return logits

    def _read_token(self, token: int) -> None:
        self._token[0] = token
        self._session.run_with_iobinding(self._steps)
        self._position += 1

    def _read_chunk(self, ids: Sequence[int]) -> None:
        tokens, total = np.asarray(ids, np.int64), self._position + len(ids)
        self._bind_input(self._chunks, "input_ids", tokens, (1, len(ids)))
        self._bind_input(self._chunks, "attention_mask", self._mask, (1, total))
        self._session.run_with_iobinding(self._chunks)
        self._position = total

    def _make_room(self, count: int) -> None:
        """Buffers and mask for so many tokens more."""
        total = self._position + count
        if total > self._capacity:
            self._reserve(min(max(total, 2 * self._capacity), self.context))
        self._mask[:total], self._mask[total:] = 1, 0

    def rewind(self, position: int) -> None:
        self._position = min(position, self._position)

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        return {role: buffer[:, :, :position].copy() for role, buffer in self._buffers.items()}

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        shape = (1, self._cache.kv_heads, position, self._cache.head_dim)
        check_rows(rows, dict.fromkeys(self._buffers, shape))
        self._position = 0
        if position > self._capacity:
            self._reserve(position)
        for role, buffer in self._buffers.items():
            buffer[:, :, :position] = rows[role]
        self._position = position

    def close(self) -> None:
        del self._steps, self._chunks, self._session
        self._buffers.clear()

    def _reserve(self, capacity: int) -> None:
        """Move each layer's key and value into a buffer of `capacity` tokens, one after the other."""
        self._capacity = capacity
        shape = (1, self._cache.kv_heads, capacity, self._cache.head_dim)
        for role in [role for role in self._entry.inputs if role.startswith(("key.", "value."))]:
            buffer = np.empty(shape, self._cache.dtype)
            if role in self._buffers:
                buffer[:, :, : self._position] = self._buffers[role][:, :, : self._position]
            self._buffers[role] = buffer
            for bound in (self._steps, self._chunks):
                self._bind_input(bound, role, buffer, shape)
                self._bind_output(bound, role, buffer, shape)
        self._bind_input(self._steps, "attention_mask", self._mask, (1, capacity))

    def _bind_last_logits(self, bound: ort.IOBinding) -> None:
        if "logits_to_keep" in self._entry.inputs:
            self._bind_input(bound, "logits_to_keep", self._one, ())
        self._bind_output(bound, "logits", self._logits, (1, 1, len(self._logits)))

    def _bind_input(self, bound: ort.IOBinding, role: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
        """Let the session read `values`, which have to stay where they are until it has run."""
        name = self._entry.inputs[role].name
        bound.bind_input(name, "cpu", 0, values.dtype.type, shape, values.ctypes.data)

    def _bind_output(self, bound: ort.IOBinding, role: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
        name = self._entry.outputs[role].name
        bound.bind_output(name, "cpu", 0, values.dtype.type, shape, values.ctypes.data)


def decoder_of(session: ort.InferenceSession, artifact: Artifact) -> OnnxDecoder:
    """Raises IntegrityFailed for an artifact whose manifest describes no decoder of this kind."""
    entries = artifact.entry_points.get("score") or artifact.entry_points.get("decode", ())
    if artifact.cache is None or artifact.cache.kind != "grown" or len(entries) != 1:
        raise IntegrityFailed(
            f"{artifact.path} has no single decode entry with a grown cache in its manifest; export the bundle again"
        )
    chunk = _FLOAT_CHUNK if artifact.precision in _FLOATS else _CHUNK
    return OnnxDecoder(session, entries[0], artifact.cache, chunk)
