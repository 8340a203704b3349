"""The table of limits has no hole through which an artifact would pass uncompared, and its metrics fail safely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters import metrics
from exporters.progress import silent
from exporters.spec import FORMATS, RECIPES, ExportSpec
from exporters.verification import accuracy
from exporters.verification.bundles import gate
from exporters.verification.evaluation import Evaluation, Score
from exporters.verification.labels import unit_of
from exporters.verification.limits import METRICS, kind_of, limits_for, table
from exporters.verification.rows import Row, failures, not_checked, sentence, summary
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden import Golden
from mobile_llm.bundle.manifest import TaskInfo
from mobile_llm.errors import VerificationFailed
from mobile_llm.problem_types import PROBLEM_TYPES

NAN = float("nan")
OUTPUTS = (
    *("logits", "label_logits", "token_logits", "number", "sentence_embedding", "last_hidden_state"),
    *("accuracy", "correlation"),
)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("output", [*OUTPUTS, "next_token", "prefill"])
def test_everything_that_can_be_exported_has_a_limit(output: str, precision: str, format_name: str) -> None:
    if precision == "int4" and output in OUTPUTS:
        assert not limits_for(output, "reference", precision, format_name)  # only models that write have it
        return
    assert limits_for(output, "reference", precision, format_name)
    if precision != "fp32" and output not in ("accuracy", "correlation"):
        assert limits_for(output, "twin", precision, format_name)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_every_kind_of_head_is_judged_by_limits_of_its_own(problem_type: str) -> None:
    tasks = [TaskInfo("text-classification", kind) for kind in PROBLEM_TYPES] + [TaskInfo("token-classification")]
    kinds = {kind_of("logits", task) for task in tasks}
    assert len(kinds) == len(tasks)
    assert {x.output for x in table()} >= kinds
    assert kind_of("sentence_embedding", TaskInfo("feature-extraction", problem_type)) == "sentence_embedding"


def test_tokens_are_judged_all_together_in_int8_and_else_as_texts_are() -> None:
    for against, precision, format_name in product(("reference", "twin"), ("fp32", "fp16", "int8"), FORMATS):
        texts, tokens = (limits_for(x, against, precision, format_name) for x in ("logits", "token_logits"))
        if (against, precision) == ("reference", "int8"):
            assert {x.metric for x in tokens} == {"relative_error", "largest_difference"}
        else:
            assert tokens == texts


def test_numbers_are_measured_in_their_spread(regression_bundle: Path) -> None:
    golden = Golden.read(regression_bundle)
    unit = unit_of("number", golden)
    assert unit == pytest.approx(float(golden.outputs["reference/logits"][: len(golden.inputs.texts)].std()), rel=1e-5)
    far = {"reference/logits": np.full_like(golden.outputs["reference/logits"], -400)}
    assert unit_of("number", replace(golden, outputs=far)) == 4  # all the same: a hundredth of their size
    assert unit_of("logits", golden) == 1


def test_every_limit_gives_a_reason_and_stands_once() -> None:
    keys = [(x.output, x.against, x.precision, x.format, x.metric) for x in table()]
    assert len(set(keys)) == len(keys)
    assert all(len(x.reason) > 20 for x in table())
    assert {x.metric for x in table()} <= {*METRICS, "points_lost", "kl", "top_1", "log_probability_difference"}


def test_a_row_for_the_format_goes_before_the_general_one() -> None:
    (own,) = limits_for("logits", "twin", "int8", "coreml")
    (general,) = limits_for("logits", "twin", "int8", "tflite")
    assert (own.format, general.format) == ("coreml", None)
    assert own.limit > general.limit


def test_limits_hold_on_their_side_and_never_for_nan() -> None:
    difference, cosine = table()[0], next(x for x in table() if x.metric == "smallest_cosine")
    assert difference.holds(difference.limit)
    assert not difference.holds(difference.limit * 1.01)
    assert cosine.holds(1.0)
    assert not cosine.holds(cosine.limit - 1e-9)
    assert not difference.holds(NAN)
    assert not cosine.holds(NAN)


A = np.array([[1.0, 2.0, 3.0], [0.0, -4.0, 3.0]], np.float32)


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_what_is_not_finite_is_as_bad_as_can_be(bad: float) -> None:
    broken = A.copy()
    broken[1, 2] = bad
    with np.errstate(invalid="ignore"):
        assert metrics.largest_difference(broken, A) == float("inf")
        assert metrics.relative_error(broken, A) == float("inf")
        assert metrics.smallest_cosine(broken, A) == -1


def test_metrics_by_hand() -> None:
    assert metrics.largest_difference(A, A + np.float32([[0, 0.5, 0], [0.25, 0, 0]])) == 0.5
    assert metrics.relative_error(A * np.float32(1.5), A) == pytest.approx(0.5)
    assert metrics.smallest_cosine(A * 3, A) == pytest.approx(1)
    assert metrics.smallest_cosine(np.array([[0, 2.0]]), np.array([[1.0, 1.0]])) == pytest.approx(0.5**0.5)
    assert metrics.agreement(A, A[::-1]) == 1
    assert metrics.agreement(A, -A) == 0
    assert metrics.margin(A).tolist() == [1, 3]


def test_a_paired_difference_has_its_interval() -> None:
    found = metrics.paired_difference(np.array([1, 1, 0, 1]), np.array([1, 0, 0, 0]))
    assert found.mean == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - 0.98 * np.sqrt(1 / 3), 0.5 + 0.98 * np.sqrt(1 / 3)))


ROW = Row("onnx/fp32", "encode", "largest_difference", 0.5, 0.1, "failed", "a reason", "here")


def test_the_gate_names_what_failed_and_strict_adds_what_was_not_checked() -> None:
    rows = [ROW, replace(ROW, status="passed"), not_checked("coreml/fp32", "encode", "parity", "no Mac")]
    assert summary(rows) == {"passed": 1, "failed": 1, "not_checked": 1}
    assert failures(rows, strict=False) == [ROW]
    assert len(failures(rows, strict=True)) == 2
    with pytest.raises(
        VerificationFailed, match=r"1 of 3 .*\n  onnx/fp32 encode: .* is 0\.5, the limit is 0\.1 \(a reason\)"
    ):
        gate(rows, strict=False)
    with pytest.raises(VerificationFailed, match=r"coreml/fp32 encode: parity was not checked \(no Mac\)"):
        gate(rows[1:], strict=True)
    gate(rows[1:], strict=False)
    assert "no Mac" in sentence(rows[2])


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch, classifier_bundle: Path) -> Callable[[np.ndarray, np.ndarray], list[Row]]:
    """The rows of accuracy for an artifact and a model that are right where the arrays say so."""

    def rows(artifact: np.ndarray, model: np.ndarray) -> list[Row]:
        score = Score(artifact.mean(), 0.9, metrics.paired_difference(artifact, model))
        found = Evaluation("accuracy", len(model), model.mean(), {"onnx/int8": score}, {"coreml/fp32": "no Mac"})
        monkeypatch.setattr(accuracy, "evaluate", lambda *_: found)
        spec: Any = ExportSpec("m", "text-classification", Path("b"), eval_data="rows.csv")
        return list(accuracy.check_accuracy(Bundle.open(classifier_bundle), spec, silent))

    return rows


def test_accuracy_lost_beyond_chance_fails(lost: Callable[..., list[Row]]) -> None:
    model = np.ones(1000)
    worse = np.where(np.arange(1000) < 30, 0, 1)
    failed, missing = lost(worse, model)
    assert (failed.status, missing.status) == ("failed", "not_checked")
    assert failed.value == pytest.approx(3)
    assert lost(model, model)[0].status == "passed"
    assert lost(np.where(np.arange(1000) < 1, 0, 1), model)[0].status == "passed"
    assert lost(model, worse)[0].status == "passed"
