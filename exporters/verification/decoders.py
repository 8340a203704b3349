"""A model that writes, against the golden references: its tokenizer and chat template, then every artifact: a prompt in
one go, some tokens one by one, more of them in one go, some with logits after each, and what it writes on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from exporters.memory import release
from exporters.metrics import divergence, log_softmax
from exporters.progress import Watch, silent
from exporters.verification.artifacts import CHECKERS
from exporters.verification.limits import Against, limits_for
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden import GOLDEN_JSON, GOLDEN_TENSORS
from mobile_llm.bundle.golden_decoder import REFERENCE, Expected, GoldenDecoder, Written
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable, UnsupportedModel, VerificationFailed
from mobile_llm.generation.engine import DecoderEngine

_STEPS = 8  # tokens of a probe that are read one by one
_SCORED = 20  # the last so many of a probe are scored: no multiple of what a static shape takes
NOISE, _NOISE_OF_FLOAT16 = 1e-3, 3e-2


def noise_of(artifact: Artifact) -> float:
    """Logits: where the likeliest token is less far above the second, another order of sums may swap them, or a cache
    that keeps float16."""
    return _NOISE_OF_FLOAT16 if artifact.cache is not None and artifact.cache.dtype == "float16" else NOISE


def check_decoder(bundle: Bundle, artifact_id: str, golden: GoldenDecoder, watch: Watch = silent) -> Iterator[Row]:
    """The rows of one artifact: as a phone runs it against the model, and where its weights are coarser its exact
    view against the twin."""
    artifact = bundle.manifest.artifacts[artifact_id]
    backend, package = CHECKERS[artifact.format][0]
    yield from _check_in(bundle, artifact_id, golden, "reference", backend, package, watch)
    if artifact.precision != "fp32":
        yield from _check_in(bundle, artifact_id, golden, "twin", f"{artifact.format}-exact", package, watch)


def _check_in(
    bundle: Bundle,
    artifact_id: str,
    golden: GoldenDecoder,
    against: Against,
    backend: str,
    package: str,
    watch: Watch,
) -> Iterator[Row]:
    watch(f"{artifact_id} in {backend}")
    try:
        with DecoderEngine.open(bundle, artifact_id, threads=2, backend=backend) as engine:
            where = here(f"{backend} ({package} {version(package)})")
            yield from _DecoderCheck(engine, golden, against, where).rows()
    except (UnsupportedModel, BackendUnavailable, PackageNotFoundError) as error:
        yield not_checked(artifact_id, "decode", f"parity in {backend}", str(error))
    except VerificationFailed as error:
        yield Row(artifact_id, "decode", f"parity in {backend}", None, None, "failed", str(error), here(backend))
    finally:
        release()


@dataclass(frozen=True, eq=False)
class _Reading:
    """What an artifact gave after the tokens at some positions of `ids`: logits float32 (positions, vocabulary)."""

    ids: tuple[int, ...]
    positions: np.ndarray
    logits: np.ndarray


class _DecoderCheck:
    """Runs the probes through one opened artifact and compares."""

    def __init__(self, engine: DecoderEngine, golden: GoldenDecoder, against: Against, where: str) -> None:
        self._engine = engine
        self._golden = golden
        self._against: Against = against
        self._where = where
        artifact = engine.artifact
        self._source = REFERENCE if against == "reference" else f"{artifact.format}/{artifact.precision}"

    def rows(self) -> Iterator[Row]:
        expected = self._golden.expected.get(self._source)
        if expected is None:
            yield not_checked(self._engine.artifact_id, "decode", "parity", f"the bundle has no {self._source}")
            return
        readings = [self._read(ids) for ids in self._golden.probes.sequences]
        yield from self._measured("decode", "next_token", _compared(expected, readings))
        yield from self._measured("prefill", "prefill", self._in_one_go(readings))
        if self._engine.artifact.scoring:
            exact = "verify" in self._engine.artifact.entry_points
            scored = [self._score(ids) for ids in self._golden.probes.sequences]
            yield from self._measured("verify" if exact else "score", "next_token", _compared(expected, scored))
            if exact and self._against == "reference":
                yield self._steps(scored)
        if self._against == "twin" or self._engine.artifact.precision == "fp32":
            yield self._greedy(self._golden.probes.written[self._source])

    def _read(self, ids: tuple[int, ...]) -> _Reading:
        """The first half, then tokens one by one, then the rest: the logits after each."""
        first = max(1, len(ids) // 2)
        stops = [*range(first, min(first + _STEPS, len(ids)) + 1), len(ids)]
        self._engine.rewind(0)
        logits, read = [], 0
        for stop in dict.fromkeys(stops):
            logits.append(self._engine.append(ids[read:stop]))
            read = stop
        return _Reading(ids, np.array(list(dict.fromkeys(stops))) - 1, np.stack(logits))

    def _score(self, ids: tuple[int, ...]) -> _Reading:
        """What comes first in one go, then the logits after each of the last."""
        first = max(0, len(ids) - _SCORED)
        self._begin(ids[:first])
        return _Reading(ids, np.arange(first, len(ids)), self._engine.score(ids[first:]))

    def _begin(self, ids: Sequence[int]) -> None:
        """Read these, which may be none, and nothing before them."""
        self._engine.rewind(0)
        if ids:
            self._engine.append(ids)

    def _steps(self, scored: Sequence[_Reading]) -> Row:
        """Whether tokens that were read at once gave what they give one by one."""
        apart = 0.0
        for reading in scored:
            self._begin(reading.ids[: reading.positions[0]])
            steps = np.stack([self._engine.append([reading.ids[place]]) for place in reading.positions])
            apart = max(apart, float(np.abs(steps - reading.logits).max()))
        status: Status = "failed" if apart else "passed"
        reason = "guessed tokens are verified by it, and answers have to stay the same"
        return Row(self._engine.artifact_id, "verify", "difference to steps", apart, 0.0, status, reason, self._where)

    def _in_one_go(self, readings: Sequence[_Reading]) -> dict[str, float]:
        """How far the last logits are from those when a probe is read at once: at worst, but on average where
        activations are rounded to integers, in ranges that depend on what is read together."""
        found = []
        for reading in readings:
            self._engine.rewind(0)
            last, other = (log_softmax(x) for x in (reading.logits[-1], self._engine.append(reading.ids)))
            found.append(float((np.exp(last) * (last - other)).sum()))
        rounded = self._against == "reference" and self._engine.artifact.precision in ("int8", "int4")
        return {"kl": float(np.mean(found) if rounded else np.max(found))}

    def _measured(self, entry: str, output: str, values: dict[str, float]) -> Iterator[Row]:
        artifact = self._engine.artifact
        limits = limits_for(output, self._against, artifact.precision, artifact.format)
        if not limits:
            yield not_checked(self._engine.artifact_id, entry, output, "no limit is stated for this precision")
        for limit in limits:
            value = values[limit.metric]
            status: Status = "passed" if limit.holds(value) else "failed"
            metric = limit.metric if self._against == "reference" else f"{limit.metric} to the twin, exact"
            yield Row(self._engine.artifact_id, entry, metric, value, limit.limit, status, limit.reason, self._where)

    def _greedy(self, written: Sequence[Written]) -> Row:
        """Continuations that differ where the model itself was not undecided."""
        wrong = sum(self._differs(one) for one in written)
        status: Status = "failed" if wrong else "passed"
        reason = f"nothing may differ where the model's margin is above {self._noise:g}"
        name = "continuations that differ" if self._against == "reference" else "continuations unlike the twin's, exact"
        return Row(self._engine.artifact_id, "greedy", name, float(wrong), 0.0, status, reason, self._where)

    @property
    def _noise(self) -> float:
        return noise_of(self._engine.artifact) if self._against == "reference" else NOISE

    def _differs(self, written: Written) -> bool:
        logits = self._engine.continue_with(written.prompt)
        for token, margin in zip(written.tokens, written.margins):
            if int(logits.argmax()) != token:
                return margin > self._noise
            if len(self._engine.tokens) == self._engine.context:
                break
            logits = self._engine.append([token])
        return False


def _compared(expected: Sequence[Expected], readings: Sequence[_Reading]) -> dict[str, float]:
    """Over the positions of all probes: mean divergence, share of equal first tokens (where the model was not
    undecided), and the largest difference of a likely token's log-probability."""
    divergences, same, largest = [], [], 0.0
    for known, reading in zip(expected, readings):
        if not np.isfinite(reading.logits).all():
            raise VerificationFailed("a logit is not finite")
        tokens, likely = known.tokens[reading.positions], known.log_probabilities[reading.positions]
        divergences.append(divergence(tokens, likely, reading.logits))
        decided = likely[:, 0] - likely[:, 1] > NOISE
        same.append((reading.logits.argmax(-1) == tokens[:, 0])[decided])
        found = np.take_along_axis(log_softmax(reading.logits), tokens.astype(np.int64), axis=-1)
        largest = max(largest, float(np.abs(found - likely).max()))
    return {
        "kl": float(np.concatenate(divergences).mean()),
        "top_1": float(np.concatenate(same).mean()),
        "log_probability_difference": largest,
    }


def check_writing_bundle(bundle: Bundle, golden: GoldenDecoder, watch: Watch = silent) -> list[Row]:
    """Every row there is."""
    from exporters.verification.packed import check_packed
    from exporters.verification.prompts import check_prompts

    watch("tokenizer and chat template")
    rows = list(check_prompts(bundle, golden.probes))
    for artifact_id in bundle.manifest.artifacts:
        rows += check_decoder(bundle, artifact_id, golden, watch)
        if bundle.manifest.artifacts[artifact_id].format == "litertlm":
            rows += check_packed(bundle, artifact_id, golden.probes)
    return rows


def read_golden(bundle: Bundle) -> GoldenDecoder:
    """The bundle's golden references, their hashes known. Raises IntegrityFailed."""
    for name in (GOLDEN_JSON, GOLDEN_TENSORS):
        bundle.own_file(name)
    return GoldenDecoder.read(bundle.folder)
