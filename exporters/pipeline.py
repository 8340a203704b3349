"""From a model to a bundle, top to bottom: plan, write, compare, and only then keep.

Three kinds of model walk here, and differ in how they are written and compared: encoders (`exporters.encoders`), models
that write (`exporters.decoders`) and models in memory (`exporters.modules`). A bundle exists only when no comparison
has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from exporters.card import write_card
from exporters.memory import new_garbage_only, release
from exporters.modules.spec import ModuleSpec
from exporters.packaging import is_ours, write_verification
from exporters.plan import make_plan
from exporters.progress import Watch, silent
from exporters.result import ExportResult
from exporters.spec import GENERATION, ExportSpec
from exporters.staging import refuse_taken, staged_folder
from exporters.verification.bundles import gate
from exporters.verification.rows import Row
from mobile_llm.bundle import Artifact, Bundle

Write = Callable[[Path], dict[str, Artifact]]  # everything but what is attested
Check = Callable[[Bundle], list[Row]]


def run_export(spec: ExportSpec, watch: Watch = silent) -> ExportResult:
    """Export as `spec` asks. `watch` is told each step.

    Raises OutputExists, ModelNotFound, UnsupportedModel, InvalidSpec, NotEnoughMemory; VerificationFailed where
    an artifact differs from the model, in which case no bundle is left.
    """
    make_plan(spec).refuse_what_cannot_fit()
    if spec.task == GENERATION:
        from exporters.decoders import pipeline as decoders

        return _walk(spec, lambda folder: decoders.write(spec, folder, watch), partial(decoders.check, watch=watch))
    from exporters.encoders import pipeline as encoders

    return _walk(
        spec, lambda folder: encoders.write(spec, folder, watch), lambda bundle: encoders.check(spec, bundle, watch)
    )


def run_module_export(spec: ModuleSpec, watch: Watch = silent) -> ExportResult:
    """The same for a model in memory. Raises OutputExists, InvalidSpec, InvalidInput, UnsupportedModel;
    VerificationFailed."""
    from exporters.modules import pipeline as modules

    refuse_taken(spec.output, spec.force)
    return _walk(spec, lambda folder: modules.write(spec, folder, watch), partial(modules.check, watch=watch))


@new_garbage_only()
def _walk(spec: ExportSpec | ModuleSpec, write: Write, check: Check) -> ExportResult:
    """The model is in memory no longer than `write` runs."""
    with staged_folder(spec.output, spec.force, ours=is_ours) as folder:
        artifacts = write(folder)
        release()
        bundle = Bundle.open(folder)
        rows = check(bundle)
        write_verification(rows, folder)
        write_card(bundle, rows)
        gate(rows, spec.strict)
    return ExportResult(spec.output, artifacts, tuple(rows))
