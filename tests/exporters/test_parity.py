"""Artifacts of every format answer as the PyTorch model does, over the settings that encoders differ in.

Besides what the export measures itself, the float32 artifacts are compared here by hand, at lengths around the
static shapes, with outputs of transformers pooled by this file's own formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

import exporters
from exporters.verification import artifacts
from mobile_llm.engine import Engine

FORMATS = ("onnx", "tflite", "coreml")
BACKENDS = {"onnx": "onnx", "tflite": "tflite", "coreml": "coreml-evaluator"}
LENGTHS = (1, 2, 5, 31, 32, 33, 63, 64)


@dataclass(frozen=True)
class Variant:
    task: str
    pooling: str = "mean"
    normalize: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    recipes: tuple[str, ...] = ("fp32", "int8")

    @property
    def id(self) -> str:
        head = f"{self.pooling} {'normalized' if self.normalize else ''}".strip()
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{'classifier' if self.task == 'text-classification' else head} {settings}".strip()


def _classifier(*recipes: str, **settings: Any) -> Variant:
    return Variant("text-classification", settings=settings, recipes=recipes or ("fp32", "int8"))


VARIANTS = [
    _classifier("fp32", "fp16", "int8"),
    _classifier(hidden_act="relu"),
    _classifier("fp32", "fp16", "int8", hidden_act="gelu_new"),
    _classifier("fp32", hidden_act="silu"),
    _classifier("fp32", num_attention_heads=1),
    _classifier(num_attention_heads=8, num_hidden_layers=1),
    _classifier("fp32", hidden_size=48, num_attention_heads=3, intermediate_size=80, num_hidden_layers=1),
    *(
        Variant("feature-extraction", mode, normalize, recipes=("fp32", "int8" if normalize else "fp16"))
        for mode in ("mean", "cls", "max")
        for normalize in (False, True)
    ),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.id)
def variant(request: pytest.FixtureRequest) -> Variant:
    found: Variant = request.param
    return found


def test_every_artifact_agrees_with_pytorch(variant: Variant, make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model(variant.task, variant.pooling, variant.normalize, **variant.settings)
    result = exporters.export(model, variant.task, tmp_path / "bundle", FORMATS, variant.recipes)
    for artifact_id in result.artifacts:
        rows = [row for row in result.rows if row.artifact == artifact_id and row.status == "passed"]
        assert rows
        assert (artifact_id.endswith("fp32")) == (not any("exact" in row.metric for row in rows))
    expected = _expected(variant, model)
    for name in FORMATS:
        with Engine.open(result.bundle, f"{name}/fp32", threads=1, backend=BACKENDS[name]) as engine:
            found = np.concatenate([next(iter(_answer(engine, ids).values())) for ids in _sequences()])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=5e-5, err_msg=name)


def _sequences() -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [random.integers(0, 100, (1, length)) for length in LENGTHS]


def _answer(engine: Engine, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The one output that every format has: logits, or the embedding."""
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    outputs = engine.run("encode", inputs)
    outputs.pop("last_hidden_state", None)
    return outputs


def _expected(variant: Variant, folder: Path) -> np.ndarray:
    kind = AutoModelForSequenceClassification if variant.task == "text-classification" else AutoModel
    model = kind.from_pretrained(folder).eval()
    rows = []
    for ids in _sequences():
        with torch.inference_mode():
            output = model(torch.from_numpy(ids))
        rows.append(output.logits if variant.task == "text-classification" else _pooled(variant, output))
    return torch.cat(rows).numpy()


def _pooled(variant: Variant, output: Any) -> Any:
    hidden = output.last_hidden_state
    vector = {"mean": hidden.mean(1), "cls": hidden[:, 0], "max": hidden.max(1).values}[variant.pooling]
    return vector / vector.norm(dim=-1, keepdim=True) if variant.normalize else vector


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_padding_does_not_reach_a_pooled_vector(
    pooling: str, artifact_id: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Rows of unlike length in one batch; int8 in its exact view, since its kernels share a range in a batch."""
    model = make_model("feature-extraction", pooling, True)
    recipe = artifact_id.split("/")[1]
    bundle = exporters.export(model, "feature-extraction", tmp_path / "bundle", ("onnx",), (recipe,)).bundle
    lengths = (3, 40, 17)
    ids = np.random.default_rng(1).integers(0, 100, (3, 40))
    mask = (np.arange(40) < np.array(lengths)[:, None]).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with Engine.open(bundle, artifact_id, backend="onnx-exact") as engine:
        batch = engine.run("encode", inputs)["sentence_embedding"]
        alone = [
            engine.run("encode", {name: t[i : i + 1, :n] for name, t in inputs.items()})["sentence_embedding"]
            for i, n in enumerate(lengths)
        ]
    np.testing.assert_allclose(batch, np.concatenate(alone), atol=2e-6)


@pytest.mark.slow
def test_tensorflow_agrees_too(classifier_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = (("tflite", "ai-edge-litert"), ("tflite-tensorflow", "tensorflow"))
    monkeypatch.setitem(artifacts.CHECKERS, "tflite", both)
    result = exporters.export(classifier_model, "text-classification", tmp_path / "bundle", ("tflite",))
    rows = [row for row in result.rows if row.where.startswith("tflite-tensorflow")]
    assert {row.artifact for row in rows} == {"tflite/fp32", "tflite/int8"}
    assert all(row.status == "passed" for row in rows)
