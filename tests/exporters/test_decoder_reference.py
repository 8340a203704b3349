"""What is kept of the PyTorch model's logits."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.decoders.reference import KEPT, likeliest
from exporters.metrics import log_softmax


@pytest.mark.parametrize("vocabulary", [5, KEPT, 3000])
@pytest.mark.parametrize("logits", ["all unlike", "many alike", "some no numbers"])
def test_the_likeliest_tokens_are_the_beginning_of_a_stable_sort(vocabulary: int, logits: str) -> None:
    values = np.random.default_rng(0).normal(size=(40, vocabulary)).astype(np.float32)
    if logits == "many alike":
        values = np.round(values, 1)
    if logits == "some no numbers":
        values[3, ::2] = np.nan
    found, chances = likeliest(values), log_softmax(values)
    order = np.argsort(-chances, axis=-1, kind="stable")[:, :KEPT]
    assert (found.tokens == order).all()
    np.testing.assert_array_equal(
        found.log_probabilities, np.take_along_axis(chances, order, axis=-1).astype(np.float32)
    )
