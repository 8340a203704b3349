"""A finished bundle compared once more with the model it came from. Not covered: whether int4 weights are those that
calibration would give; that the artifacts hold what was attested is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from exporters.architectures.decoders import describe_decoder
from exporters.decoders.golden import make_golden
from exporters.decoders.pipeline import generation_of, twins_of
from exporters.metrics import largest_difference
from exporters.progress import Watch, silent
from exporters.sources.huggingface import open_source
from exporters.spec import GENERATION
from exporters.verification.decoders import check_writing_bundle
from exporters.verification.rows import Row, Status, here
from exporters.verification.tokens import count_row
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_decoder import REFERENCE, GoldenDecoder

_LIMIT = 1e-3


def compare_with_model(bundle: Bundle, bundled: GoldenDecoder, model: str, watch: Watch = silent) -> list[Row]:
    """Every row against references taken anew, to which the bundled ones must be equal."""
    watch(f"asking {model} for reference answers")
    fresh = _ask_model(bundle, bundled, model)
    return [*_same(bundled, fresh), *check_writing_bundle(bundle, fresh, watch)]


def _ask_model(bundle: Bundle, bundled: GoldenDecoder, model: str) -> GoldenDecoder:
    source = open_source(model, GENERATION)
    artifacts = bundle.manifest.artifacts
    context = min(artifact.cache.context for artifact in artifacts.values() if artifact.cache)
    twins = twins_of(describe_decoder(source.model), [i for i in artifacts if not _was_calibrated(i)])
    fresh = make_golden(source.model, source.tokenizer, context, generation_of(source).stop, twins)
    return _with_calibrated(fresh, bundled)


def _was_calibrated(source: str) -> bool:
    """Of an artifact, or of references. Integers that a text decided cannot be computed again without it, and a bundle
    does not say whether it was there."""
    return source.split("-")[0].endswith("/int4")


def _with_calibrated(fresh: GoldenDecoder, bundled: GoldenDecoder) -> GoldenDecoder:
    """Of artifacts that may have been calibrated the bundle's own twins, where they answered the same probes; where
    not, their comparison is `not_checked`."""
    if fresh.probes.sequences != bundled.probes.sequences:
        return fresh
    kept = [source for source in bundled.expected if _was_calibrated(source)]
    written = {**fresh.probes.written, **{source: bundled.probes.written[source] for source in kept}}
    expected = {**fresh.expected, **{source: bundled.expected[source] for source in kept}}
    return GoldenDecoder(replace(fresh.probes, written=written), expected)


def _same(bundled: GoldenDecoder, fresh: GoldenDecoder) -> Iterator[Row]:
    """A bundle must not attest to another model."""
    where = here("PyTorch")
    same = (bundled.probes.texts, bundled.probes.chats, bundled.probes.sequences) == (
        fresh.probes.texts,
        fresh.probes.chats,
        fresh.probes.sequences,
    )
    yield count_row("golden references", "texts and prompts that differ", 0 if same else 1, where)
    if not same:
        return
    pairs = zip(bundled.expected[REFERENCE], fresh.expected[REFERENCE])
    value = max(largest_difference(a.log_probabilities, b.log_probabilities) for a, b in pairs)
    status: Status = "passed" if value <= _LIMIT else "failed"
    reason = "the same model on the same kind of machine; 1e-3 allows for another CPU"
    metric = "largest difference of log-probabilities"
    yield Row("bundle", "golden references", metric, value, _LIMIT, status, reason, where)
