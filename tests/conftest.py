"""Tiny random models and the bundles exported from them. Everything is made here: nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

# Before anything starts threads: on tensors this small they cost more than they save, and two tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from mobile_llm.bundle import Bundle, Manifest
from mobile_llm.bundle.codec import to_json
from mobile_llm.bundle.integrity import describe_file

LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 64
FORMATS = ("onnx", "tflite", "coreml")
_WORDS = (
    "the a and is it film plot funny moving good bad not at all again repeats hard call shares rose trading "
    "loved would watch def return add text reviews great terrible boring warm long too makes no sense"
)
_MODELS: dict[str, Callable[[], Any]] = {
    "text-classification": lambda: import_module("transformers").AutoModelForSequenceClassification,
    "token-classification": lambda: import_module("transformers").AutoModelForTokenClassification,
    "feature-extraction": lambda: import_module("transformers").AutoModel,
}
_SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="session", autouse=True)
def _without_tensorflow() -> Iterator[None]:
    """TensorFlow, the second client of TFLite files, takes seconds to import; one slow test asks for it."""
    from exporters.verification import artifacts

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(artifacts.CHECKERS, "tflite", artifacts.CHECKERS["tflite"][:1])
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is left in the user's folder for caches, nor read from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILE_LLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a tiny random encoder, by default a BERT, with its tokenizer; `settings` go into its config, `body` and
    `head` are how large the weights of layers and of the classifier are."""

    def make(
        task: str = "text-classification",
        pooling: str = "mean",
        normalize: bool = True,
        config_class: Any = None,
        body: float = 0.3,
        head: float = 0.5,
        **settings: Any,
    ) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny-{task}")
        _save_model(folder, task, config_class, (body, head), settings)
        save_tokenizer(folder)
        if task == "feature-extraction":
            _save_modules(folder, pooling, normalize)
        return folder

    return make


@pytest.fixture(scope="session")
def classifier_model(make_model: Callable[..., Path]) -> Path:
    return make_model("text-classification")


@pytest.fixture(scope="session")
def embedder_model(make_model: Callable[..., Path]) -> Path:
    return make_model("feature-extraction")


@pytest.fixture(scope="session")
def multilabel_model(make_model: Callable[..., Path]) -> Path:
    return make_model(problem_type="multi_label_classification")


@pytest.fixture(scope="session")
def regression_model(make_model: Callable[..., Path]) -> Path:
    """A number for a pair of texts, from a head of one output whose config names no problem_type."""
    folder = make_model(id2label={0: "likeness"}, label2id={"likeness": 0}, text_pairs=True)
    feed_token_types(folder)
    return folder


@pytest.fixture(scope="session")
def _multilabel_bundle(multilabel_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(multilabel_model, "text-classification", tmp_path_factory)


@pytest.fixture(scope="session")
def _regression_bundle(regression_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(regression_model, "text-classification", tmp_path_factory)


@pytest.fixture(scope="session")
def _classifier_bundle(classifier_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(classifier_model, "text-classification", tmp_path_factory)


@pytest.fixture(scope="session")
def _embedder_bundle(embedder_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(embedder_model, "feature-extraction", tmp_path_factory)


@pytest.fixture
def classifier_bundle(_classifier_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a finished bundle (three formats, fp32 and int8), to be changed at will."""
    return Path(shutil.copytree(_classifier_bundle, tmp_path / "classifier"))


@pytest.fixture
def embedder_bundle(_embedder_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_embedder_bundle, tmp_path / "embedder"))


@pytest.fixture
def multilabel_bundle(_multilabel_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_multilabel_bundle, tmp_path / "multilabel"))


@pytest.fixture
def regression_bundle(_regression_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_regression_bundle, tmp_path / "regression"))


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Changes manifest.json as plain data."""

    def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
        path = bundle / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def rehash() -> Callable[[Path], None]:
    """Makes every size and hash of a manifest right again, so that only a comparison can refuse the bundle."""

    def rehashed(bundle: Path) -> None:
        manifest = Bundle.open(bundle).manifest
        files = tuple(describe_file(bundle, bundle / file.path) for file in manifest.files)
        artifacts = {
            name: replace(a, files=tuple(describe_file(bundle, bundle / file.path) for file in a.files))
            for name, a in manifest.artifacts.items()
        }
        _write(bundle, replace(manifest, files=files, artifacts=artifacts))

    return rehashed


@pytest.fixture(scope="session")
def keep_only() -> Callable[[Path, str], None]:
    """Leaves a single artifact in a bundle."""

    def keep(bundle: Path, artifact_id: str) -> None:
        manifest = Bundle.open(bundle).manifest
        artifact = manifest.artifacts[artifact_id]
        _write(bundle, replace(manifest, artifacts={artifact_id: artifact}, defaults={artifact.format: artifact_id}))

    return keep


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command that must fail: its exit code, the type of the error and its sentence."""

    def run(*arguments: str) -> tuple[int, str, str]:
        from mobile_llm.commands import main

        code = main([*arguments, "--json"])
        error = json.loads(capsys.readouterr().out)["error"]
        return code, error["type"], error["message"]

    return run


def _write(bundle: Path, manifest: Manifest) -> None:
    (bundle / "manifest.json").write_text(json.dumps(to_json(manifest)), encoding="utf-8")


def _export(model: Path, task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import exporters

    return exporters.export(model, task, tmp_path_factory.mktemp("exported") / "bundle").bundle


def _save_model(
    folder: Path, task: str, config_class: Any, sizes: tuple[float, float], settings: dict[str, Any]
) -> None:
    import torch
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = (config_class or transformers.BertConfig)(
        vocab_size=len(_vocabulary()),
        **({} if config_class else small)
        | {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
        | {"max_position_embeddings": MAX_LENGTH + (2 if settings.get("pad_token_id") == 1 else 0)}
        | settings,
    )
    torch.manual_seed(0)
    model = _MODELS[task]().from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_random(name, parameter, *sizes))
    model.save_pretrained(folder)


def _random(name: str, parameter: Any, body: float, head: float) -> Any:
    """Weights large enough for answers to differ, embeddings small as in real models, no bias zero, no norm one."""
    import torch

    noise = torch.randn_like(parameter)
    if "orm.weight" in name:
        return 1 + 0.2 * noise
    if "bias" in name:
        return 0.1 * noise
    return (0.05 if "embeddings" in name else head if "classifier" in name else body) * noise


def save_tokenizer(folder: Path) -> None:
    """WordPiece over letters and a few words, lower-cased: tokenizer.json and tokenizer_config.json."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    tokenizer.decoder = decoders.WordPiece()
    names = {f"{token[1:-1].lower()}_token": token for token in _SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, **names).save_pretrained(folder)


def feed_token_types(folder: Path) -> None:
    """As BERT's own tokenizer: the second text of a pair has the token type 1."""
    path = folder / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | names), encoding="utf-8")


def _vocabulary() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{letter}" for letter in letters), *".,!?()+-@/#:'[]<>|", *"这部电影", "##ing", "##y"]
    return list(dict.fromkeys([*_SPECIAL, *pieces, *_WORDS.split()]))


def _save_modules(folder: Path, pooling: str, normalize: bool) -> None:
    """As sentence-transformers writes them."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 3 if normalize else 2]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    switches = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    config = {f"pooling_mode_{key}": mode == pooling for mode, key in switches.items()}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
