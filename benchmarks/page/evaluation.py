"""The figures of `mobile-llm evaluate`, read from the JSON document it prints or saves, as a page shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.page.markup import Cell, fold, heading, paragraph, table
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.codec import from_json
from mobile_llm.errors import InvalidInput

# Rows that differ are listed up to here, the surest first.
_LISTED = 40
_PAIRED = ("difference in points", "95 % interval", "agreement", "rows unlike")


@dataclass(frozen=True)
class Difference:
    """Artifact minus model over the same rows, with the 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Disagreement:
    """A row that an artifact labels unlike the model; `margin` says how sure the model was."""

    row: int
    margin: float
    reference: str
    artifact: str


@dataclass(frozen=True)
class Details:
    """One artifact beside the model; None where no model was measured."""

    value: float
    agreement: float | None = None
    difference: Difference | None = None
    disagreements: tuple[Disagreement, ...] = ()
    standard_error: float | None = None
    normalized: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The document. `reference` is the PyTorch model's own figure."""

    metric: str
    examples: int
    reference: float | None
    artifacts: Mapping[str, float]
    not_checked: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Details] = field(default_factory=dict)


def read_evaluation(path: str, bundle: Bundle) -> Evaluation:
    """Raises InvalidInput for a file that is missing, is not an evaluation, or is one of another bundle."""
    again = f"make one with `mobile-llm evaluate BUNDLE --data FILE --save {path}`"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        evaluation = from_json(Evaluation, data, "it", ignore_unknown=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); {again}") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON ({error}); {again}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{path} is not an evaluation: {error}; {again}") from None
    foreign = [
        name for name in (*evaluation.artifacts, *evaluation.not_checked) if name not in bundle.manifest.artifacts
    ]
    if foreign:
        raise InvalidInput(f"{path} is of another bundle: {bundle.folder.name} has no {foreign[0]}; {again}")
    return evaluation


def section(evaluation: Evaluation | None) -> str:
    """A line per artifact, the model first."""
    if evaluation is None:
        return ""
    paired = any(details.difference for details in evaluation.details.values())
    columns = ["", evaluation.metric, *(_PAIRED if paired else ())]
    intro = f"{evaluation.metric.capitalize()} on {evaluation.examples:,} rows."
    if paired:
        intro += (
            " Differences are artifact minus PyTorch model, paired row by row: where the interval contains 0, chance "
            "alone could explain what is seen."
        )
    width = len(columns)
    rows = [*_model(evaluation), *(_line(name, evaluation) for name in evaluation.artifacts)]
    rows = [row[:width] for row in rows] + list(_missing(evaluation, width - 1))
    return heading("The task") + paragraph(intro, "note") + table(columns, rows) + _disagreements(evaluation)


def _model(evaluation: Evaluation) -> Iterable[list[Cell]]:
    if evaluation.reference is not None:
        yield [Cell("PyTorch model", "id"), Cell(figure(evaluation, evaluation.reference), "n"), *[Cell("", "n")] * 4]


def _line(name: str, evaluation: Evaluation) -> list[Cell]:
    details = evaluation.details.get(name, Details(evaluation.artifacts[name]))
    figures = (figure(evaluation, evaluation.artifacts[name]), *_beside_the_model(details))
    return [Cell(name, "id"), *(Cell(text, "n") for text in figures)]


def _beside_the_model(details: Details) -> tuple[str, str, str, str]:
    found = details.difference
    if found is None or details.agreement is None:
        return "–", "–", "–", "–"
    interval = f"{_points(found.low)} to {_points(found.high)}"
    listed = details.disagreements or details.agreement == 1  # of entities and numbers none is
    unlike = str(len(details.disagreements)) if listed else "–"
    return _points(found.mean), interval, f"{details.agreement:.2%}", unlike


def _missing(evaluation: Evaluation, span: int) -> Iterable[list[Cell]]:
    """The reasons stand in the box on top."""
    for name in evaluation.not_checked:
        yield [Cell(name, "id"), Cell("not checked", "not_checked", span)]


def _disagreements(evaluation: Evaluation) -> str:
    found = [(name, d) for name, details in evaluation.details.items() for d in details.disagreements]
    if not found:
        return ""
    found.sort(key=lambda pair: -pair[1].margin)
    columns = ("artifact", "row", "the model said", "the artifact said", "margin of the model's logits")
    lines = (
        [Cell(name, "id"), Cell(str(d.row), "n"), Cell(d.reference), Cell(d.artifact), Cell(f"{d.margin:.3f}", "n")]
        for name, d in found[:_LISTED]
    )
    which = f"; the {_LISTED} of which the model was surest" if len(found) > _LISTED else ", the surest first"
    return fold(f"{len(found)} rows labelled unlike the model{which}", table(columns, lines))


def figure(evaluation: Evaluation, value: float) -> str:
    """An accuracy in per cent; a cosine, which is no share of anything, as it is."""
    return f"{value:.2%}" if evaluation.metric == "accuracy" else f"{value:.5f}"


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.2f}"
