"""A plain torch module: three formats out of memory, compared with it; what cannot be taken is refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import exporters
import mobile_llm
from exporters.modules.pipeline import ModuleSpec, open_module
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_tensors import GoldenTensors
from mobile_llm.commands import main
from mobile_llm.errors import IntegrityFailed, InvalidInput, InvalidSpec, UnsupportedModel, WrongTask
from mobile_llm.tasks.tokenization import TextTokenizer

_NEEDED = ("onnxscript", "litert_torch")
_MISSING = [name for name in _NEEDED if not find_spec(name)]  # looked for, not imported: that takes seconds
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")

TOPICS, VOCABULARY = 4, 120
ARTIFACTS = [f"{name}/{recipe}" for recipe in ("fp32", "int8") for name in ("onnx", "tflite", "coreml")]


def news(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Word counts of made-up articles: each topic has 30 words that it uses more often than the others do."""
    random = np.random.default_rng(seed)
    topics = random.integers(0, TOPICS, rows)
    rates = np.full((TOPICS, VOCABULARY), 0.2)
    for topic in range(TOPICS):
        rates[topic, topic * 30 : topic * 30 + 30] = 0.6
    return torch.from_numpy(random.poisson(rates[topics]).astype(np.float32)), torch.from_numpy(topics)


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """Trained until it is right on most articles, and left in train mode: what comes out has no dropout in it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(VOCABULARY, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, TOPICS))
    counts, topics = news(2000, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(counts), topics).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def exported(classifier: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("news") / "bundle"
    return exporters.export(classifier, example_inputs=news(3, seed=2)[0], output=output)


@pytest.fixture(scope="module")
def scaled(classifier: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one weight 5 % larger."""
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        other[0].weight.mul_(1.05)
    output = tmp_path_factory.mktemp("scaled") / "bundle"
    return exporters.export(other, example_inputs=news(3, seed=2)[0], output=output).bundle


def test_every_artifact_is_compared_at_shapes_that_were_not_traced(exported: Any) -> None:
    assert set(exported.artifacts) == set(ARTIFACTS)
    assert {row.status for row in exported.rows} == {"passed"}
    for artifact_id in ARTIFACTS:
        entries = {row.entry_point for row in exported.rows if row.artifact == artifact_id}
        assert entries == {"run: output", "run, other batch sizes: output"}


def test_float32_is_the_module_to_rounding(exported: Any) -> None:
    assert max(row.value for row in exported.rows if row.artifact.endswith("fp32")) < 1e-5


def test_the_module_is_left_in_train_mode(exported: Any, classifier: nn.Module) -> None:
    assert classifier.training
    assert all(module.training for module in classifier)


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_a_bundle_gives_the_modules_topics(artifact_id: str, exported: Any, classifier: nn.Module) -> None:
    counts, topics = news(70, seed=3)  # more than go in at once
    backend = "coreml-evaluator" if artifact_id.startswith("coreml") else None
    model = mobile_llm.load(exported.bundle, artifact_id, threads=1, backend=backend)
    logits = model.run({"input": counts.numpy()})["output"]
    model.close()
    with torch.no_grad():
        expected = nn.Sequential(*(m for m in classifier if not isinstance(m, nn.Dropout)))(counts).numpy()
    assert (logits.argmax(-1) == topics.numpy()).mean() > 0.9
    assert (logits.argmax(-1) == expected.argmax(-1)).mean() > 0.95


def test_integers_are_a_quarter_of_the_floats(exported: Any) -> None:
    for name in ("onnx", "tflite", "coreml"):
        assert exported.artifacts[f"{name}/int8"].size < 0.6 * exported.artifacts[f"{name}/fp32"].size


def test_the_manifest_names_tensors_types_and_dimensions(exported: Any) -> None:
    manifest = Bundle.open(exported.bundle).manifest
    assert (manifest.task.name, manifest.tokenizer) == ("tensor", None)
    (entry,) = manifest.artifacts["onnx/fp32"].entry_points["run"]
    assert entry.inputs["input"].shape == ("batch", VOCABULARY)
    assert entry.inputs["input"].range == {"batch": (1, 64)}
    (entry,) = manifest.artifacts["tflite/fp32"].entry_points["run"]
    assert (entry.inputs["input"].shape, entry.signature) == ((1, VOCABULARY), "run")


def test_an_artifact_does_not_say_where_it_was_made(exported: Any) -> None:
    here = str(Path(__file__).parent.parent.parent).encode()
    for path in exported.bundle.rglob("*"):
        assert path.is_dir() or here not in path.read_bytes(), path


def test_a_finished_bundle_is_verified_again(exported: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(exported.bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["failed"] == 0


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_a_weight_scaled_by_a_twentieth_is_refused(
    artifact_id: str,
    exported: Any,
    scaled: Path,
    tmp_path: Path,
    keep_only: Callable[[Path, str], None],
    rehash: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    relative = exported.artifacts[artifact_id].path
    if (bundle / relative).is_dir():
        shutil.copytree(scaled / relative, bundle / relative, dirs_exist_ok=True)
    else:
        shutil.copyfile(scaled / relative, bundle / relative)
    keep_only(bundle, artifact_id)
    rehash(bundle)
    assert main(["verify", str(bundle), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["artifact"] for row in rows if row["status"] == "failed"} == {artifact_id}


def test_golden_references_come_back_as_they_were(exported: Any, tmp_path: Path) -> None:
    golden = GoldenTensors.read(exported.bundle)
    assert {tensors["input"].shape for tensors in golden.inputs} == {(n, VOCABULARY) for n in (1, 3, 5, 13)}
    golden.write(tmp_path)
    for name in ("golden.json", "golden.safetensors"):
        assert (tmp_path / name).read_bytes() == (exported.bundle / name).read_bytes()
    (tmp_path / "golden.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(IntegrityFailed, match="golden references"):
        GoldenTensors.read(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "takes input, not nothing"),
        ({"words": np.zeros((1, VOCABULARY), np.float32)}, "takes input, not words"),
        ({"input": np.zeros((1, 7), np.float32)}, "should have the shape"),
        ({"input": np.zeros((0, VOCABULARY), np.float32)}, "should have the shape"),
        ({"input": np.array([["a"] * VOCABULARY])}, "should be float32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(inputs: dict[str, Any], sentence: str, exported: Any) -> None:
    model = mobile_llm.load(exported.bundle, "onnx/fp32")
    with pytest.raises(InvalidInput, match=sentence):
        model.run(inputs)


def test_texts_are_not_for_a_bundle_of_tensors(exported: Any, answer: Callable[..., tuple[int, str, str]]) -> None:
    code, kind, message = answer("run", str(exported.bundle), "a text")
    assert (code, kind) == (2, "WrongTask")
    assert "takes tensors" in message
    with pytest.raises(WrongTask, match="takes tensors"):
        TextTokenizer(Bundle.open(exported.bundle))


def test_a_bundle_of_tensors_is_inspected(exported: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(exported.bundle)]) == 0
    shown = capsys.readouterr().out
    assert "takes input: float32 ['batch', 120]" in shown
    assert "gives output: float32 ['batch', 4]" in shown


class TwoInputs(nn.Module):
    """Ids and a number per row; two outputs by name, one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.head = nn.Linear(9, 3)

    def forward(self, ids: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(torch.cat([self.table(ids).mean(1), weight], dim=-1))
        return {"logits": logits, "best": logits.argmax(-1)}


class OneShape(nn.Module):
    """Works at the shape of its example only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.reshape(2, 6))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x - 1


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs_keep_their_names(by_name: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids, weight = torch.randint(0, 50, (2, 6)), torch.rand(2, 1)
    examples: Any = {"weight": weight, "ids": ids} if by_name else (ids, weight)
    model, output = TwoInputs().eval(), tmp_path / "bundle"
    formats = ("onnx", "coreml") if by_name else ("tflite",)
    result = exporters.export(model, example_inputs=examples, output=output, formats=formats, recipes=("fp32",))
    assert {row.status for row in result.rows} == {"passed"}
    assert {row.entry_point.split(": ")[1] for row in result.rows} == {"logits", "best"}


def test_a_module_of_one_shape_is_exported_at_it(tmp_path: Path) -> None:
    x = torch.rand(3, 4)
    result = exporters.export(OneShape(), example_inputs=x, output=tmp_path / "bundle", recipes=("fp32",))
    assert {(row.entry_point, row.status) for row in result.rows} == {("run: output", "passed")}
    model = mobile_llm.load(result.bundle, "onnx/fp32")
    assert model.run({"x": x.numpy()})["output"].shape == (2, 2)
    with pytest.raises(InvalidInput, match=r"the shape \[3, 4\], not \[6, 4\]"):
        model.run({"x": np.zeros((6, 4), np.float32)})


@pytest.mark.parametrize(
    ("model", "examples", "error", "sentence"),
    [
        (nn.Linear(3, 2), None, InvalidSpec, "needs example_inputs"),
        (nn.Linear(3, 2), (), InvalidSpec, "needs example_inputs"),
        (nn.Linear(3, 2), "text", InvalidSpec, "is a str; pass a tensor"),
        (nn.Linear(3, 2), [[1.0, 2.0, 3.0]], InvalidSpec, "is a list; pass a tensor"),
        (nn.Linear(3, 2), np.zeros((1, 3)), InvalidSpec, "is float64"),
        (nn.Linear(3, 2), torch.zeros(0, 3), InvalidSpec, "is empty"),
        (nn.Linear(3, 2), (torch.zeros(1, 3), torch.zeros(1)), InvalidSpec, "takes 1 inputs"),
        (nn.Linear(3, 2), torch.zeros(1, 4), InvalidInput, "does not take the example inputs"),
        (nn.Linear(3, 2).half(), torch.zeros(1, 3), UnsupportedModel, r"module\.float\(\)"),
        (nn.Linear(3, 2).double(), torch.zeros(1, 3), UnsupportedModel, "float64"),
        (Branching(), torch.ones(2, 3), UnsupportedModel, "depends on the values"),
    ],
)
def test_what_cannot_be_traced_is_refused(
    model: nn.Module, examples: Any, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        exporters.export(model, example_inputs=examples, output=tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"model": "folder", "task": "text-classification", "output": "b", "example_inputs": torch.rand(1)},
            "no example",
        ),
        ({"model": "folder", "output": "b"}, "needs a task"),
        ({"model": 3, "output": "b", "example_inputs": torch.rand(1)}, "this is a int"),
        ({"model": nn.Linear(3, 2), "example_inputs": torch.rand(1, 3)}, "output has to be given"),
        ({"model": nn.Linear(3, 2), "output": "b", "task": "feature-extraction"}, "leave out task"),
        ({"model": nn.Linear(3, 2), "output": "b", "formats": ["gguf"]}, "gguf is not a choice"),
        ({"model": nn.Linear(3, 2), "output": "b", "recipes": []}, "nothing is not a choice"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        exporters.export(**arguments)


def test_a_missing_converter_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "exporters.modules.spec.find_spec", lambda name: None if name == "litert_torch" else find_spec(name)
    )
    with pytest.raises(InvalidSpec, match=r'litert_torch: pip install "mobile-llm\[export-modules\]"'):
        exporters.export(nn.Linear(3, 2), example_inputs=torch.rand(1, 3), output=tmp_path / "bundle")


def test_only_weights_of_linear_layers_and_lookups_become_integers() -> None:
    from exporters.quantization.traced import held_values, to_int8

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.table = nn.Linear(32, 16), nn.Embedding(40, 32)
            self.kernel, self.scale = nn.Parameter(torch.rand(16, 24)), nn.Parameter(torch.rand(32, 32))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.linear(self.table(ids).mean(1) * self.scale[0]) @ self.kernel

    traced = to_int8(open_module(ModuleSpec(Mixed(), torch.randint(0, 40, (2, 5)), Path("unused"))).traced)
    assert set(traced.integers) == {"module.linear.weight", "module.table.weight", "module.kernel"}
    assert traced.columns == {"module.kernel"}
    assert traced.integers["module.kernel"].integers.shape == (24, 16)
    assert held_values(traced)["module.kernel"].shape == (16, 24)


class Recurrent(nn.Module):
    def __init__(self, both: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 8)
        self.layer = nn.LSTM(8, 12, batch_first=True, bidirectional=both)
        self.head = nn.Linear(24 if both else 12, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.table(ids))[0][:, 2])


@pytest.mark.parametrize("both", [False, True])
def test_an_lstm_is_one_operator_in_core_ml_and_is_evaluated(both: bool, tmp_path: Path) -> None:
    from mobile_llm.artifacts import read

    torch.manual_seed(0)
    ids, output = torch.randint(0, 60, (2, 5)), tmp_path / "bundle"
    result = exporters.export(Recurrent(both), example_inputs=ids, output=output, formats=("onnx", "coreml"))
    assert {row.status for row in result.rows} == {"passed"}
    graph = read("coreml", output / result.artifacts["coreml/fp32"].path)
    assert sum(op.type == "lstm" for op in graph.functions["main"].ops) == 1
    assert {row.entry_point for row in result.rows} == {"run: output", "run, other batch sizes: output"}
