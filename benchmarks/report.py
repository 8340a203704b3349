"""The page a person reads: one HTML file that needs nothing else, of a bundle's attestation, accuracy and benchmark.

What failed or could not be checked stands first and loud. Texts of the bundle are text here, never markup.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from benchmarks.page import evaluation as task
from benchmarks.page import measured, phones
from benchmarks.page.attested import Attested, read_attested
from benchmarks.page.attested import section as attested_section
from benchmarks.page.evaluation import Evaluation, read_evaluation
from benchmarks.page.markup import facts, heading, loud, paragraph, short
from benchmarks.result import Result
from mobile_llm import __version__
from mobile_llm.bundle import Bundle
from mobile_llm.errors import OutputExists

__all__ = ["check_target", "read_evaluation", "render", "write"]

_METHOD = (
    "A latency is the time of one call of the engine with real token ids, after two warm-up runs; the file cache is "
    "warm. Cold starts from disk, energy, heat and texts in batches are not covered. Operations are counted in the "
    "artifact's own graph: linear layers, attention and the rows read from embedding tables; normalization and "
    "activation functions are not counted."
)


def check_target(path: str, force: bool) -> None:
    """Raises OutputExists where a page may not be written, before any work is done."""
    target = Path(path)
    if target.is_dir():
        raise OutputExists(f"{path} is a folder, and the page is a file; choose another name such as report.html")
    if target.exists() and not force:
        raise OutputExists(f"{path} exists; choose another name, or pass --force to replace it")


def write(path: str, bundle: Bundle, result: Result, evaluation: Evaluation | None, force: bool) -> None:
    """The page appears whole or not at all; with `force` an earlier one is replaced at that moment."""
    check_target(path, force)
    target = Path(path).absolute()
    text = render(bundle, result, evaluation)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        scratch.chmod(0o644)  # a temporary file is its owner's alone
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def render(bundle: Bundle, result: Result, evaluation: Evaluation | None) -> str:
    """The page as text."""
    attested = read_attested(bundle)
    name = bundle.folder.name
    parts = [
        f"<h1>{escape(name)}</h1>",
        paragraph(_lead(bundle), "lead"),
        facts(_facts(result, attested, evaluation)),
        _trouble(result, attested, evaluation),
        attested_section(attested),
        task.section(evaluation),
        measured.latency(result),
        measured.steps(result),
        measured.load(result),
        measured.ceiling(result),
        phones.section(result),
        heading("How this was measured"),
        paragraph(_METHOD, "note"),
        _footer(result, attested, bundle),
    ]
    template = Template(files("benchmarks.page").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"{name}: what it costs, how it compares"), body="\n".join(filter(None, parts))
    )


def _lead(bundle: Bundle) -> str:
    origin, info = bundle.manifest.origin, bundle.manifest.task
    size = f", {origin.parameters / 1e6:.1f} million parameters" if origin.parameters else ""
    labels = f" ({', '.join(info.labels)})" if info.labels else ""
    kinds = ", ".join(bundle.manifest.artifacts)
    what = f"{origin.id} ({origin.architecture}{size}), for {info.name}{labels}, as {kinds}"
    return f"{what}. Licence of the model: {origin.licence or 'not stated'}."


def _facts(result: Result, attested: Attested, evaluation: Evaluation | None) -> Iterator[tuple[str, str, str]]:
    yield "comparisons passed", f"{attested.count('passed')} of {len(attested.rows)}", "with the PyTorch model"
    if evaluation is not None and evaluation.reference is not None:
        yield evaluation.metric, task.figure(evaluation, evaluation.reference), "PyTorch model"
    if evaluation is not None and evaluation.artifacts:
        least = min(evaluation.artifacts, key=lambda name: evaluation.artifacts[name])
        yield f"least {evaluation.metric}", task.figure(evaluation, evaluation.artifacts[least]), least
    smallest = min(result.sizes, key=lambda name: result.sizes[name])
    yield "smallest artifact", f"{result.sizes[smallest] / 1e6:.1f} MB", smallest
    times = {i: m.latency[result.tokens].p50_ms for i, m in result.measurements.items() if result.tokens in m.latency}
    if times:
        fastest = min(times, key=lambda name: times[name])
        yield f"at {result.tokens} tokens here", f"{short(times[fastest])} ms", fastest


def _trouble(result: Result, attested: Attested, evaluation: Evaluation | None) -> str:
    """Failures, then what nobody has checked: also what was never asked for."""
    failed = [*attested.failed, *(f"{name} failed here: {why}" for name, why in result.failed.items())]
    missing = [*attested.not_checked, *_together("latency", result.not_checked)]
    if evaluation is None:
        missing.append("the task on rows of your own: no --evaluation was given")
    else:
        missing += _together(evaluation.metric, evaluation.not_checked)
    missing += [
        f"operations of {', '.join(cost.uncounted)} in {name}" for name, cost in result.costs.items() if cost.uncounted
    ]
    missing.append(
        "a phone: none was measured" + ("; what is said of phones is predicted" if result.predictions else "")
    )
    boxes = [loud("Failed", failed, bad=True)] if failed else []
    return "".join([*boxes, loud("Not checked", missing)])


def _together(what: str, reasons: Mapping[str, str]) -> list[str]:
    """One sentence for all artifacts with the same reason."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return [f"{what} of {', '.join(names)}: {reason}" for reason, names in groups.items()]


def _footer(result: Result, attested: Attested, bundle: Bundle) -> str:
    host = result.host
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"Measured {now} on {host['cpu']}, {host['cores']} cores, {host['system']}, Python {host['python']}, with "
        f"mobile-llm {__version__}. Weights that came in: sha256 {bundle.manifest.origin.weights_sha256}."
    ]
    if attested.rows:
        versions = ", ".join(f"{name} {version}" for name, version in attested.versions.items())
        lines.append(f"Compared {attested.created} on {attested.host} with {versions}.")
    return f"<footer>{''.join(paragraph(line) for line in lines)}</footer>"
