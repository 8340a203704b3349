"""What the comparison of prompt lookup counts."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.lookup import OTHER, SUMMARIZING, Row, prompts, summarize


def test_there_are_fifty_prompts_of_two_kinds_in_turns() -> None:
    kinds, texts = zip(*prompts())
    assert Counter(kinds) == {SUMMARIZING: 25, OTHER: 25}
    assert set(kinds[:2]) == {SUMMARIZING, OTHER}
    assert len(set(texts)) == 50


def test_speed_is_of_tokens_since_answers_may_differ_in_length() -> None:
    rows = [
        Row(SUMMARIZING, True, 40, 40, 30, 20, 1.0, 2.0),
        Row(OTHER, False, 20, 40, 0, 0, 1.0, 2.0),
    ]
    summary = summarize("onnx/fp32", rows)
    assert (summary.prompts, summary.identical, summary.proposed, summary.accepted) == (2, 1, 30, 20)
    assert summary.speed == {SUMMARIZING: pytest.approx(2.0), OTHER: pytest.approx(1.0)}
