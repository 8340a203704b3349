"""One artifact against the golden references: every entry point, at lengths nothing was fixed at, padded and
not, and the labels a user would be given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from exporters.memory import release
from exporters.verification.labels import answer_row, unit_of
from exporters.verification.limits import Against, Limit, kind_of, limits_for
from exporters.verification.probes import spread
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.bundle import Bundle, EntryPoint
from mobile_llm.bundle.golden import Golden
from mobile_llm.engine import Engine, longest, static_length
from mobile_llm.errors import BackendUnavailable, UnsupportedModel, VerificationFailed
from mobile_llm.tasks.tokenization import Encoded, stack

# Who runs each format here, with the package whose version is noted; the first is what a user's phone has.
CHECKERS = {
    "onnx": (("onnx", "onnxruntime"),),
    "tflite": (("tflite", "ai-edge-litert"), ("tflite-tensorflow", "tensorflow")),
    "coreml": (("coreml-evaluator", "mobile-llm"),),
    "litertlm": (("litertlm", "ai-edge-litert"),),
}
_PROBES_PER_STATIC_ENTRY = 6
_BATCHED = 128  # tokens: longer ones would be padded to, at the cost of memory alone


def check_artifact(bundle: Bundle, artifact_id: str, golden: Golden) -> Iterator[Row]:
    """The rows of one artifact: as every runtime here answers against the model, and, where the artifact's numbers
    are not the model's own, its exact view (`exporters.verification.exact`) against the twin."""
    artifact = bundle.manifest.artifacts[artifact_id]
    main, *others = CHECKERS[artifact.format]
    yield from _check_in(bundle, artifact_id, golden, "reference", *main)
    for backend, package in others:
        if _installed(package):
            yield from _check_in(bundle, artifact_id, golden, "reference", backend, package)
    if artifact.precision != "fp32":
        yield from _check_in(bundle, artifact_id, golden, "twin", f"{artifact.format}-exact", main[1])


def _check_in(
    bundle: Bundle, artifact_id: str, golden: Golden, against: Against, backend: str, package: str
) -> Iterator[Row]:
    try:
        with Engine.open(bundle, artifact_id, threads=2, backend=backend) as engine:
            where = here(f"{backend} ({package} {version(package)})")
            yield from ArtifactCheck(engine, golden, against, where).rows()
    except (UnsupportedModel, BackendUnavailable, PackageNotFoundError) as error:
        yield not_checked(artifact_id, "encode", f"parity in {backend}", str(error))
    except VerificationFailed as error:
        yield Row(artifact_id, "encode", f"parity in {backend}", None, None, "failed", str(error), here(backend))
    finally:
        release()


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


class ArtifactCheck:
    """Runs the probes through one opened artifact and compares."""

    _role = "encode"

    def __init__(self, engine: Engine, golden: Golden, against: Against, where: str) -> None:
        self._engine = engine
        self._golden = golden
        self._against: Against = against
        self._where = where
        texts = [Encoded(text.ids, text.types) for text in golden.inputs.texts]
        bare = [Encoded(ids, (0,) * len(ids)) for ids in golden.inputs.sequences]
        self._probes = texts + bare

    def rows(self) -> Iterator[Row]:
        for entry in self._engine.artifact.entry_points[self._role]:
            yield from self._parity(entry)
        if self._engine.manifest.task.labels and self._against == "reference":
            yield answer_row(self._engine, self._golden, self._where)

    def _parity(self, entry: EntryPoint) -> Iterator[Row]:
        """Each fitting probe alone, then, where the batch is dynamic, the texts padded into one batch."""
        chosen = self._fitting(entry)
        alone = [self._answer(entry, [i]) for i in chosen]
        name = entry.signature or "encode"
        yield from self._compare(name, {key: np.concatenate([a[key] for a in alone]) for key in alone[0]}, chosen)
        if entry.inputs["input_ids"].shape[0] == "batch" and not self._depends_on_batch:
            texts = [i for i in chosen if i < len(self._golden.inputs.texts) and len(self._probes[i].ids) <= _BATCHED]
            yield from self._compare(f"{name}, padded batch", self._answer(entry, texts), texts)

    def _answer(self, entry: EntryPoint, probes: Sequence[int]) -> dict[str, np.ndarray]:
        """One batch of probes; of outputs along the sequence some tokens, as in the references."""
        outputs = self._outputs(entry, probes)
        lengths = [len(self._probes[i].ids) for i in probes]
        return {name: spread(name, t, lengths) if t.ndim == 3 else t for name, t in outputs.items()}

    def _outputs(self, entry: EntryPoint, probes: Sequence[int]) -> dict[str, np.ndarray]:
        return self._engine.run_entry(entry, stack([self._probes[i] for i in probes]))

    @property
    def _source(self) -> str:
        """Whose answers in the golden references are expected."""
        return "reference" if self._against == "reference" else self._engine.artifact_id

    @property
    def _depends_on_batch(self) -> bool:
        """Whether an answer depends on its batch by design: onnxruntime's integer products round activations with
        one range for the whole tensor."""
        return self._engine.artifact_id == "onnx/int8" and self._against == "reference"

    def _fitting(self, entry: EntryPoint) -> list[int]:
        """Probes that fit, in their order; for a static shape a handful spread over the lengths."""
        fitting = [i for i, p in enumerate(self._probes) if len(p.ids) <= longest(entry)]
        if static_length(entry) is None:
            return fitting
        by_length = sorted(fitting, key=lambda i: len(self._probes[i].ids))
        spread = np.linspace(0, len(by_length) - 1, _PROBES_PER_STATIC_ENTRY).round().astype(int)
        return sorted({by_length[i] for i in spread})

    def _compare(self, entry: str, answers: dict[str, np.ndarray], probes: Sequence[int]) -> Iterator[Row]:
        artifact = self._engine.artifact
        source = self._source
        for output, answer in answers.items():
            expected = self._golden.outputs.get(f"{source}/{output}")
            if expected is None:
                yield not_checked(
                    self._engine.artifact_id, entry, output, f"the bundle has no {source} to compare with"
                )
                continue
            if answer.shape != expected[list(probes)].shape:
                widths = f"{answer.shape[-1]} wide, the {source}'s is {expected.shape[-1]}"
                raise VerificationFailed(f"{output} of {entry} is {widths}")
            kind = kind_of(output, self._engine.manifest.task)
            unit = unit_of(kind, self._golden)
            for limit in limits_for(kind, self._against, artifact.precision, artifact.format):
                yield self._row(entry, limit, limit.measure(answer / unit, expected[list(probes)] / unit))

    def _row(self, entry: str, limit: Limit, value: float) -> Row:
        status: Status = "passed" if limit.holds(value) else "failed"
        metric = limit.metric if limit.against == "reference" else f"{limit.metric} to the twin, exact"
        return Row(self._engine.artifact_id, entry, metric, value, limit.limit, status, limit.reason, self._where)
