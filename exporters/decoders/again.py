"""A finished bundle compared once more with the model it came from."""

from __future__ import annotations

from collections.abc import Iterator

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
    fresh = _ask_model(bundle, model)
    return [*_same(bundled, fresh), *check_writing_bundle(bundle, fresh, watch)]


def _ask_model(bundle: Bundle, model: str) -> GoldenDecoder:
    source = open_source(model, GENERATION)
    artifacts = bundle.manifest.artifacts
    context = min(artifact.cache.context for artifact in artifacts.values() if artifact.cache)
    twins = twins_of(describe_decoder(source.model), list(artifacts))
    return make_golden(source.model, source.tokenizer, context, generation_of(source).stop, twins)


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
