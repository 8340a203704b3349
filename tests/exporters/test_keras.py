"""A Keras model over TensorFlow: an Embedding and an LSTM that judge made-up sentences, exported and compared."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporters
import mobile_llm
from mobile_llm.commands import main
from mobile_llm.errors import InvalidInput, InvalidSpec, UnsupportedModel

_NEEDED = ("onnxscript", "litert_torch", "keras", "tensorflow")
_MISSING = [name for name in _NEEDED if not find_spec(name)]  # looked for, not imported: that takes seconds
pytestmark = [
    pytest.mark.slow,  # TensorFlow alone takes ten seconds to import
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]

LENGTH, WORDS = 12, 80
GOOD, BAD, NOT = range(1, 11), range(11, 21), 21


def sentences(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids with one word of praise or blame each; "not" before it turns it around, so that order matters."""
    random = np.random.default_rng(seed)
    ids = random.integers(30, WORDS, (rows, LENGTH)).astype(np.int32)
    good, turned = random.integers(0, 2, rows), random.integers(0, 2, rows)
    for row in range(rows):
        place = random.integers(1, LENGTH)
        ids[row, place] = random.choice(GOOD if good[row] else BAD)
        if turned[row]:
            ids[row, place - 1] = NOT
    return ids, (good ^ turned).astype(np.float32)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


@pytest.fixture(scope="module")
def sentiment(keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((LENGTH,), dtype="int32"),
            layers.Embedding(WORDS, 16),
            layers.Dropout(0.2),
            layers.LSTM(24),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="sentiment",
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    model.fit(*sentences(3000, seed=1), epochs=8, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(sentiment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("keras") / "bundle"
    return exporters.export(sentiment, example_inputs=sentences(3, seed=2)[0], output=output)


def test_every_artifact_agrees_with_the_keras_model(exported: Any) -> None:
    assert set(exported.artifacts) == {f"{n}/{r}" for r in ("fp32", "int8") for n in ("onnx", "tflite", "coreml")}
    assert {row.status for row in exported.rows} == {"passed"}
    assert max(row.value for row in exported.rows if row.artifact.endswith("fp32")) < 1e-5
    assert {row.entry_point for row in exported.rows} == {"run: output", "run, other batch sizes: output"}


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8", "tflite/fp32", "tflite/int8", "coreml/int8"])
def test_a_bundle_judges_as_the_model_does(artifact_id: str, exported: Any, sentiment: Any) -> None:
    ids, labels = sentences(100, seed=3)
    backend = "coreml-evaluator" if artifact_id.startswith("coreml") else None
    model = mobile_llm.load(exported.bundle, artifact_id, threads=1, backend=backend)
    found = model.run({"input": ids})["output"][:, 0] > 0.5
    model.close()
    expected = sentiment.predict(ids, verbose=0)[:, 0] > 0.5
    assert (expected == labels).mean() > 0.9
    assert (found == expected).mean() > 0.97


def test_a_finished_bundle_is_verified_again(exported: Any) -> None:
    assert main(["verify", str(exported.bundle), "--json"]) == 0


def test_what_a_keras_model_does_not_take_is_refused(sentiment: Any, keras: Any, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(InvalidSpec, match="needs example_inputs"):
        exporters.export(sentiment, output=output)
    with pytest.raises(InvalidInput, match="does not take the example inputs"):
        exporters.export(sentiment, example_inputs=np.zeros((2, LENGTH, 3), np.float32), output=output)

    class Unregistered(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    odd = keras.Sequential([keras.layers.Input((3,)), Unregistered()])
    with pytest.raises(UnsupportedModel, match="only built-in and registered layers"):
        exporters.export(odd, example_inputs=np.zeros((2, 3), np.float32), output=output)
    assert not list(tmp_path.iterdir())
