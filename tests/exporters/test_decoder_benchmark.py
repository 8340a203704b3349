"""`mobile-llm benchmark` of a model that writes: what is timed, and costs against sums made by hand for the tiny Llama:
width 32, 2 layers, 4 heads over 2 of keys and values, feed-forward 48, 264 words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cost import artifact_cost, step_cost
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main

LAYER = 32 * (32 + 2 * 16) + 32 * 32 + 3 * 32 * 48  # query, key and value; output; gate, up and down
MATRICES = 2 * LAYER + 264 * 32


def test_a_prompt_and_a_step_are_timed_at_each_length(writing_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--artifact", "onnx/int8", "--lengths", "4,8,500", "--rounds", "1", "--threads", "1", "--json"]
    assert main(["benchmark", str(writing_bundle), *options]) == 0
    found = json.loads(capfd.readouterr().out)
    measured = found["artifacts"]["onnx/int8"]
    assert found["lengths"] == [4, 8]
    for times in (*measured["latency"].values(), *measured["steps"].values()):
        assert 0 < times["p50_ms"] <= times["p90_ms"]
    assert measured["steps"]["8"]["tokens_per_second"] == pytest.approx(1000 / measured["steps"]["8"]["p50_ms"])
    assert measured["step_cost"]["tokens"] == 1


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8"])
def test_costs_are_those_of_the_formula(artifact_id: str, writing_bundle: Path) -> None:
    bundle = Bundle.open(writing_bundle)
    prompt, step = artifact_cost(bundle, artifact_id, 8), step_cost(bundle, artifact_id, 8)
    assert (prompt.linear, step.linear) == (2 * 8 * MATRICES, 2 * MATRICES)
    assert prompt.attention == 2 * 4 * 32 * sum(range(1, 9))  # layers x (two products, two operations each)
    assert step.attention == 2 * 4 * 32 * 9
    assert prompt.uncounted == step.uncounted == ()
