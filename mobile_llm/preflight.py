"""Whether a model that writes fits into memory, before it is loaded: weights, cache and buffers against what is free.

Estimates, on the safe side: measured with SmolLM2-135M (int4 and int8, ONNX and TFLite, x86), where a process took at
most what is said here. Not measured: Core ML, of which the larger figures are taken; other runtimes of the same files,
such as our evaluator of Core ML, which takes several times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobile_llm.bundle.manifest import Artifact, KvCache
from mobile_llm.errors import InvalidSpec, NotEnoughMemory, WrongTask
from mobile_llm.machine import available_memory

_MB = 10**6
_COPIES = 2  # of the weights: the file's pages, and as the kernels pack them
_BUFFERS = {"onnx": 96 * _MB, "tflite": 112 * _MB}  # tokenizer, runtime, activations
_OTHER_BUFFERS = 176 * _MB
# While a cache of fixed sizes moves to the next one, half as large again is held; one that grows moves layer by layer.
_MOVING = {"rows": 1.5}
_SHORTEST = 64  # tokens: no use in less


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes whatever its context, and for each token of it."""

    fixed: int
    token: int

    def total(self, context: int) -> int:
        return self.fixed + context * self.token

    def longest(self, free: int) -> int:
        """The context that fits into `free` bytes; 0 or less for none."""
        return (free - self.fixed) // self.token


def check_memory(artifact_id: str, artifact: Artifact, context: int | None) -> None:
    """Raises NotEnoughMemory, naming the context that does fit, InvalidSpec for a context that the artifact cannot
    have, WrongTask for one that is asked of a model without a cache. Where the system does not say what is free,
    nothing is refused."""
    if artifact.cache is None:
        if context is not None:
            raise WrongTask(f"{artifact_id} has no KV cache, and so no context to choose; leave it out")
        return
    wanted = chosen_context(artifact_id, artifact.cache, context)
    free, need = available_memory(), need_of(artifact, artifact.cache)
    if free is None or need.total(wanted) <= free:
        return
    fits = need.longest(free)
    advice = f"a context of {fits} fits" if fits >= _SHORTEST else "no context fits; close other programs"
    raise NotEnoughMemory(
        f"{artifact_id} with a context of {wanted} takes about {need.total(wanted) // _MB} MB, and {free // _MB} MB "
        f"are free; {advice}, or take a smaller artifact"
    )


def chosen_context(artifact_id: str, cache: KvCache, context: int | None) -> int:
    """The artifact's own where none is asked for. Raises InvalidSpec for more than that, or less than two tokens."""
    if context is not None and not 2 <= context <= cache.context:
        raise InvalidSpec(
            f"a context of {context} is not between 2 and the {cache.context} tokens of {artifact_id}; export with a "
            "longer --context for more"
        )
    return context or cache.context


def need_of(artifact: Artifact, cache: KvCache) -> Need:
    token = 2 * cache.layers * cache.kv_heads * cache.head_dim * np.dtype(cache.dtype).itemsize
    buffers = _BUFFERS.get(artifact.format, _OTHER_BUFFERS)
    return Need(_COPIES * artifact.size + buffers, int(token * _MOVING.get(cache.kind, 1)))
