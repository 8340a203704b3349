"""A bundle of a module against its golden references: every artifact, at the shapes that were traced and at others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from exporters.memory import release
from exporters.progress import Watch, silent
from exporters.verification.artifacts import CHECKERS
from exporters.verification.limits import Against, Limit, limits_for
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.bundle.golden import GOLDEN_JSON, GOLDEN_TENSORS
from mobile_llm.bundle.golden_tensors import GoldenTensors
from mobile_llm.engine import Engine
from mobile_llm.errors import BackendUnavailable, IntegrityFailed, InvalidInput, UnsupportedModel, VerificationFailed
from mobile_llm.tasks.tensor import ROLE, TensorModel

_OUTPUT = "tensor"  # the rows of the table of limits, whatever an output is called


def check_tensors(bundle: Bundle, golden: GoldenTensors, watch: Watch = silent) -> list[Row]:
    """Every row there is; `watch` is told what is being compared."""
    rows: list[Row] = []
    for artifact_id, artifact in bundle.manifest.artifacts.items():
        watch(artifact_id)
        for backend, package, against in _runs(artifact):
            rows += _check_in(bundle, artifact_id, golden, backend, package, against)
    return rows


def read_golden(bundle: Bundle) -> GoldenTensors:
    """The bundle's golden references. Raises IntegrityFailed where they lack what its artifacts give."""
    for name in (GOLDEN_JSON, GOLDEN_TENSORS):
        bundle.own_file(name)
    golden = GoldenTensors.read(bundle.folder)
    for artifact in bundle.manifest.artifacts.values():
        for entry in artifact.entry_points.get(ROLE, ()):
            for side, known in ((entry.inputs, golden.inputs[0]), (entry.outputs, golden.answers["reference"][0])):
                missing = sorted(set(side) - set(known))
                if missing:
                    raise IntegrityFailed(f"{GOLDEN_TENSORS} has no {missing[0]!r}; export the bundle again")
    return golden


def _runs(artifact: Artifact) -> Iterator[tuple[str, str, Against]]:
    """As a phone runs it against the model, and where weights are coarser its float32 view against the twin."""
    main, *others = CHECKERS[artifact.format]
    yield (*main, "reference")
    for backend, package in others:
        if _installed(package):
            yield backend, package, "reference"
    if artifact.precision == "int8":
        yield f"{artifact.format}-exact", main[1], "twin"


def _check_in(
    bundle: Bundle, artifact_id: str, golden: GoldenTensors, backend: str, package: str, against: Against
) -> Iterator[Row]:
    try:
        with Engine.open(bundle, artifact_id, threads=2, backend=backend) as engine:
            where = here(f"{backend} ({package} {version(package)})")
            yield from _compare(engine, golden, against, where)
    except (UnsupportedModel, BackendUnavailable, PackageNotFoundError) as error:
        yield not_checked(artifact_id, ROLE, f"parity in {backend}", str(error))
    except (VerificationFailed, InvalidInput) as error:
        yield Row(artifact_id, ROLE, f"parity in {backend}", None, None, "failed", str(error), here(backend))
    finally:
        release()


def _compare(engine: Engine, golden: GoldenTensors, against: Against, where: str) -> Iterator[Row]:
    model = TensorModel(engine)
    source = engine.artifact_id if against == "twin" else "reference"
    expected = golden.answers.get(source)
    if expected is None:
        yield not_checked(engine.artifact_id, ROLE, "parity to the twin", "the bundle has no twin to compare with")
        return
    answers = [model.run(inputs) for inputs in golden.inputs]
    for traced, title in ((True, ROLE), (False, f"{ROLE}, other batch sizes")):
        places = [place for place, probe in enumerate(golden.probes) if probe.traced == traced]
        for name in model.outputs if places else ():
            scale = max(float(np.abs(answer[name]).max()) for answer in expected) or 1.0
            found, wanted = ([side[place][name] / scale for place in places] for side in (answers, expected))
            yield from _rows(engine, title, name, against, where, found, wanted)


def _rows(
    engine: Engine,
    title: str,
    name: str,
    against: Against,
    where: str,
    found: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
) -> Iterator[Row]:
    for answer, reference in zip(found, wanted):
        if answer.shape != reference.shape:
            raise VerificationFailed(f"{name} has the shape {answer.shape}, the {against}'s is {reference.shape}")
    flat = [np.concatenate([array.ravel() for array in side]) for side in (found, wanted)]
    artifact = engine.artifact
    limits = limits_for(_OUTPUT, against, artifact.precision, artifact.format)
    if not limits:
        yield not_checked(engine.artifact_id, title, f"parity of {name}", "no limit is stated for this precision")
    for limit in limits:
        yield _row(engine.artifact_id, title, name, limit, limit.measure(flat[0], flat[1]), where)


def _row(artifact_id: str, title: str, name: str, limit: Limit, value: float, where: str) -> Row:
    status: Status = "passed" if limit.holds(value) else "failed"
    metric = limit.metric if limit.against == "reference" else f"{limit.metric} to the twin, exact"
    return Row(artifact_id, f"{title}: {name}", metric, value, limit.limit, status, limit.reason, where)


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
