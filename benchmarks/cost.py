"""What one forward pass costs physically, counted from the artifact's graph: operations, bytes read, file size.
Of an artifact that writes: reading a prompt from its first token on, and one token more.

Covered: linear layers (products with a constant weight), attention (products of two computed values), rows read
from embedding tables; batch 1. An operation is a multiplication or an addition: two per multiply-accumulate.
Not covered: normalization, activation functions, softmax and data movement (a few per cent of the operations, more
of the time for short texts), position tables, which are sliced and not looked up (0.5 % of MiniLM's bytes at 128
tokens), convolutions and fused attention other than MultiHeadAttention and GroupQueryAttention: the last two are named
in `uncounted`; reading the KV cache.
A head is counted for every token although only one passes through it (pooler and classifier of a six-layer BERT: 1.4 %;
the vocabulary of a small model that writes: a fifth of reading a prompt), so that formats that do not state its shape
agree with those that do.
Where shapes are static, what is counted is the smallest entry point that fits, padding included: that is what runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.counting import Count
from benchmarks.weights import Names
from mobile_llm.artifacts import read
from mobile_llm.artifacts.graph import ArtifactGraph
from mobile_llm.bundle import Artifact, Bundle, EntryPoint
from mobile_llm.bundle.manifest import TensorBinding
from mobile_llm.engine import longest, static_length
from mobile_llm.errors import InvalidInput


@dataclass(frozen=True)
class Cost:
    """One forward pass.

    Attributes:
        tokens: positions computed, padding to a static shape included.
        linear: operations of linear layers; `attention`: of products of two computed values.
        weight_bytes: stored bytes of the weights that are read once (of embedding tables, only the rows used).
        arithmetic: "int8", "float16" or "float32": what most linear operations multiply in.
        uncounted: heavy operators that are not counted, by type.
    """

    tokens: int
    linear: int
    attention: int
    weight_bytes: int
    file_bytes: int
    arithmetic: str
    uncounted: tuple[str, ...] = ()

    @property
    def operations(self) -> int:
        return self.linear + self.attention


def artifact_cost(bundle: Bundle, artifact_id: str, tokens: int) -> Cost:
    """The cost of `tokens` tokens in an artifact of a bundle. Raises InvalidInput for more than it takes."""
    artifact = bundle.choose(artifact_id)[1]
    return graph_cost(read(artifact.format, bundle.path(artifact.path)), artifact, artifact_id, tokens)


def step_cost(bundle: Bundle, artifact_id: str, past: int) -> Cost:
    """The cost of one token more after `past` tokens, in an artifact that writes."""
    artifact = bundle.choose(artifact_id)[1]
    graph = read(artifact.format, bundle.path(artifact.path))
    entries = artifact.entry_points["decode"]
    entry = next((e for e in entries if not _is_below(e.inputs.get("value.0"), past)), entries[-1])
    return _cost_of(graph, entry, artifact, Count(1, past))


def graph_cost(graph: ArtifactGraph, artifact: Artifact, artifact_id: str, tokens: int) -> Cost:
    entry = smallest(artifact, artifact_id, tokens)
    return _cost_of(graph, entry, artifact, Count(static_length(entry) or tokens))


def _cost_of(graph: ArtifactGraph, entry: EntryPoint, artifact: Artifact, count: Count) -> Cost:
    function = graph.functions.get(entry.signature or "") or next(iter(graph.functions.values()))
    count.add(function, Names(function))
    arithmetic = count.linear.most_common(1)[0][0] if count.linear else "float32"
    uncounted = tuple(f"{kind} x{times}" for kind, times in count.uncounted.items())
    read_bytes = sum(count.bytes.values())
    return Cost(count.tokens, count.linear.total(), count.attention, read_bytes, artifact.size, arithmetic, uncounted)


def _is_below(cache: TensorBinding | None, past: int) -> bool:
    """Whether a cache of fixed size is too small."""
    return cache is not None and isinstance(cache.shape[2], int) and cache.shape[2] < past


def smallest(artifact: Artifact, artifact_id: str, tokens: int) -> EntryPoint:
    """The entry point that the runtime would take. Raises InvalidInput where none fits."""
    entries = next(iter(artifact.entry_points.values()))
    fitting = [entry for entry in entries if longest(entry) >= tokens]
    if not fitting:
        most = max(longest(entry) for entry in entries)
        raise InvalidInput(f"{artifact_id} takes up to {most} tokens, not {tokens}; ask for a shorter length")
    return min(fitting, key=longest)
