"""Artifacts that take strings: equal to the two-step path id for id, refused where they cannot be, judged by a gate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import exporters
import mobile_llm
from benchmarks import fuzz_text_input, measure
from benchmarks.strings import random_strings
from exporters.formats.onnx.text import text_front
from exporters.verification.probes import TEXTS as GOLDEN
from exporters.verification.text_input import LISTED, TEXTS
from mobile_llm.backends.onnx import register_extensions
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main
from mobile_llm.errors import BackendUnavailable, InvalidInput, InvalidSpec, UnsupportedModel
from mobile_llm.tasks.tokenization import TextTokenizer

Ids = Callable[[str], list[int]]


@pytest.fixture(scope="session")
def _text_classifier(classifier_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("text") / "bundle"
    return exporters.export(classifier_model, "text-classification", output, ("onnx",), text_input=True).bundle


@pytest.fixture
def text_classifier(_text_classifier: Path, tmp_path: Path) -> Path:
    """A copy with onnx/fp32, onnx/int8 and both again with the tokenizer inside."""
    return Path(shutil.copytree(_text_classifier, tmp_path / "taking text"))


@pytest.fixture
def folder(classifier_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_model, tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Changes tokenizer.json as plain data."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return folder


def in_graph(folder: Path, limit: int = 64) -> Ids:
    """The tokenizer as operators."""
    options = onnxruntime.SessionOptions()
    register_extensions(options)
    front = text_front(folder, limit).model.SerializeToString()
    session = onnxruntime.InferenceSession(front, options, providers=["CPUExecutionProvider"])
    return lambda text: list(session.run(["input_ids"], {"text": np.array([text], object)})[0][0])


def beside(folder: Path, limit: int = 64) -> Ids:
    """The tokenizer as `tokenizers` runs it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return lambda text: list(tokenizer.encode(text).ids)


def texts() -> list[str]:
    """What both must agree on; NUL is refused before it gets here."""
    return [text for text in (*GOLDEN, *TEXTS, *random_strings(300, seed=1)) if "\0" not in text]


def test_texts_are_cut_right_with_tensorflow_in_the_process(text_classifier: Path) -> None:
    """TensorFlow's library has regular expressions of its own under the names the operators call."""
    pytest.importorskip("tensorflow")
    code = """if True:
        import sys
        {before}
        import mobile_llm
        print(mobile_llm.load(sys.argv[1], "onnx/fp32-text").logits(["a good film", "bad, bad!"]).tolist())"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code.format(before=before), str(text_classifier)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for before in ("", "import tensorflow")
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8"])
def test_a_classifier_answers_strings_as_it_answers_ids(artifact_id: str, text_classifier: Path) -> None:
    inside = mobile_llm.load(text_classifier, f"{artifact_id}-text")
    given = ["a good film", "", "snow☃ İstanbul [MASK]", "bad " * 100, "x"]
    np.testing.assert_array_equal(
        inside.logits(given, batch_size=3), mobile_llm.load(text_classifier, artifact_id).logits(given)
    )
    assert inside.classify("a good film")[0].label == mobile_llm.load(text_classifier).classify("a good film")[0].label


def test_an_embedder_answers_strings_as_it_answers_ids(embedder_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    exporters.export(embedder_model, "feature-extraction", output, ("onnx",), ("fp32",), text_input=True)
    given = ["a good film", "这部电影", "long " * 90]
    inside = mobile_llm.load(output, "onnx/fp32-text").embed(given)
    np.testing.assert_array_equal(inside, mobile_llm.load(output, "onnx/fp32").embed(given))
    assert inside.std() > 0.01


def test_the_plain_artifacts_stay_as_they_are(text_classifier: Path, classifier_model: Path, tmp_path: Path) -> None:
    plain = exporters.export(classifier_model, "text-classification", tmp_path / "plain", ("onnx",)).bundle
    for name in ("model.onnx", "model_quantized.onnx"):
        assert (text_classifier / "onnx" / name).read_bytes() == (plain / "onnx" / name).read_bytes()
    manifest = Bundle.open(text_classifier).manifest
    assert manifest.defaults == {"onnx": "onnx/int8"}
    artifact = manifest.artifacts["onnx/int8-text"]
    assert (artifact.precision, artifact.path) == ("int8", "onnx/model_quantized_text.onnx")
    assert artifact.minimum["onnxruntime-extensions"] == "0.13"
    graph = onnx.load(text_classifier / artifact.path).graph
    assert [value.name for value in graph.input] == ["text"]
    assert [value.name for value in graph.output] == ["input_ids", "logits"]


def test_every_text_artifact_is_compared(text_classifier: Path) -> None:
    attested = json.loads((text_classifier / "verification.json").read_text(encoding="utf-8"))
    assert attested["summary"]["failed"] == 0
    found = {row["metric"] for row in attested["rows"] if row["artifact"] == "onnx/int8-text"}
    twin = "largest_difference to the twin, exact"
    assert found >= {"texts whose ids differ in the graph", "largest_difference", "labels that differ", twin}


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("accents", [True, False])
def test_wordpiece_in_a_graph_is_exact(lowercase: bool, accents: bool, folder: Path) -> None:
    change(folder, lambda data: data["normalizer"].update(lowercase=lowercase, strip_accents=accents))
    inside, wanted = in_graph(folder), beside(folder)
    assert [text for text in texts() if inside(text) != wanted(text)] == []


@pytest.mark.parametrize("limit", [2, 3, 7, 64])
def test_truncation_is_that_of_the_two_step_path(limit: int, folder: Path) -> None:
    inside, wanted = in_graph(folder, limit), beside(folder, limit)
    for text in ("good " * 100, "good film", "", "x" * 99):
        assert inside(text) == wanted(text)
    assert len(inside("good " * 100)) == limit


@pytest.fixture
def byte_level_model(tmp_path: Path) -> Path:
    """A tiny RoBERTa with a byte-level BPE tokenizer, whose mask takes the space before it."""
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(name, lstrip=name == "<mask>", special=True, normalized=False) for name in names]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    spaced = ["a §", "a ¶", "a °", "a   b", "a    b"] * 20  # so that how spaces are cut shows in the ids
    tokenizer.train_from_iterator([*GOLDEN[:9]] * 3 + spaced, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": special[4]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named).save_pretrained(
        tmp_path / "model"
    )
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = RobertaConfig(
        vocab_size=400, max_position_embeddings=66, num_labels=3, pad_token_id=1, type_vocab_size=1, **small
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_byte_level_bpe_goes_into_a_graph(byte_level_model: Path, tmp_path: Path) -> None:
    inside, wanted = in_graph(byte_level_model), beside(byte_level_model)
    more = ["a  <mask>\n<mask> b", "I <3", "<", "< ", "</s>", "a</s"]
    assert [text for text in [*texts(), *more] if inside(text) != wanted(text) and "\x85" not in text] == []
    assert [text for text in LISTED if inside(text) != wanted(text)] == list(LISTED)  # else none need be listed
    output = tmp_path / "bundle"
    rows = exporters.export(byte_level_model, "text-classification", output, ("onnx",), ("fp32",), text_input=True).rows
    assert [row.status for row in rows if row.metric.startswith("texts such as")] == ["not_checked"] * len(LISTED)
    given = ["a good film", "<mask> naïve 👍🏽"]
    found = mobile_llm.load(output, "onnx/fp32-text").logits(given)
    np.testing.assert_array_equal(found, mobile_llm.load(output, "onnx/fp32").logits(given))


def test_bpe_that_the_operator_changes_is_refused(byte_level_model: Path) -> None:
    change(byte_level_model, lambda data: data.update(normalizer={"type": "NFC"}))
    with pytest.raises(UnsupportedModel, match="normalizer NFC"):
        text_front(byte_level_model, 64)
    change(byte_level_model, lambda data: data.update(normalizer=None, pre_tokenizer={"type": "Whitespace"}))
    with pytest.raises(UnsupportedModel, match="not over bytes"):
        text_front(byte_level_model, 64)


def test_other_kinds_of_tokenizers_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)).save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModel, match="model type Unigram cannot go into an ONNX graph"):
        exporters.export(folder, "text-classification", tmp_path / "out", ("onnx",), ("fp32",), text_input=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda data: data.update(normalizer=json.loads(normalizers.NFKC().__getstate__())), "normalizer NFKC"),
        (lambda data: data.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer Whitespace"),
        (lambda data: data["normalizer"].update(clean_text=False, strip_accents=False), "keeps control characters"),
        (lambda data: data["model"].update(max_input_chars_per_word=50), "end at 50 characters"),
        (lambda data: data["added_tokens"][0].update(single_word=True), "as a whole word"),
        (lambda data: data["model"]["vocab"].update({"a\nb": 500}), "cannot go into a graph"),
    ],
)
def test_wordpiece_that_would_differ_is_refused(
    edit: Callable[[dict[str, Any]], object], sentence: str, folder: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=sentence):
        text_front(change(folder, edit), 64)


def test_text_input_is_refused_where_no_artifact_could_take_it(classifier_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="text input is for ONNX, and the formats are tflite, coreml"):
        exporters.export(
            classifier_model, "text-classification", tmp_path / "out", ("tflite", "coreml"), text_input=True
        )


def test_a_missing_package_is_named_with_its_extra(
    classifier_model: Path, text_classifier: Path, tmp_path: Path, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(BackendUnavailable, match=r'pip install "mobile-llm\[text-input\]"'):
        mobile_llm.load(text_classifier, "onnx/int8-text")
    assert mobile_llm.load(text_classifier, "onnx/int8").classify("good")
    out = str(tmp_path / "out")
    command = ("export", str(classifier_model), "--task", "text-classification", "--formats", "onnx", "-o", out)
    code, kind, message = answer(*command, "--text-input")
    assert (code, kind) == (2, "BackendUnavailable")
    assert 'pip install "mobile-llm[text-input]"' in message
    assert main(["verify", str(text_classifier), "--json"]) == 0
    assert main(["verify", str(text_classifier), "--json", "--strict"]) == 1


def tamper(path: Path, edit: Callable[[Any], None]) -> None:
    model = onnx.load(path)
    edit(model.graph)
    path.write_bytes(model.SerializeToString())


def _attribute(graph: Any, op: str, name: str) -> Any:
    (node,) = (node for node in graph.node if node.op_type == op)
    return next(attribute for attribute in node.attribute if attribute.name == name)


def two_words_swapped(graph: Any) -> None:
    vocabulary = _attribute(graph, "BertTokenizer", "vocab_file")
    lines = vocabulary.s.decode().split("\n")
    first, second = lines.index("funny"), lines.index("moving")
    lines[first], lines[second] = lines[second], lines[first]
    vocabulary.s = "\n".join(lines).encode()


def one_letter_kept_upper(graph: Any) -> None:
    table = _attribute(graph, "StringMapping", "map")
    assert b"\nA\ta\n" in table.s
    table.s = table.s.replace(b"\nA\ta\n", b"\nA\tA\n")


def unknown_words_kept_in_part(graph: Any) -> None:
    (node,) = (node for node in graph.node if node.op_type == "Or")
    node.input[0], node.op_type = node.input[1], "Or"
    (everything,) = (node for node in graph.node if node.op_type == "And")
    everything.input[1] = everything.input[0]


@pytest.mark.parametrize("edit", [two_words_swapped, one_letter_kept_upper, unknown_words_kept_in_part])
def test_a_tokenizer_that_is_wrong_in_one_thing_is_refused(
    edit: Callable[[Any], None],
    text_classifier: Path,
    keep_only: Callable[..., None],
    rehash: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep_only(text_classifier, "onnx/int8-text")
    tamper(text_classifier / "onnx" / "model_quantized_text.onnx", edit)
    rehash(text_classifier)
    assert main(["verify", str(text_classifier), "--json"]) == 1
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["status"] == "failed"]
    first = rows[0]
    assert (first["artifact"], first["metric"]) == ("onnx/int8-text", "texts whose ids differ in the graph")
    assert first["reason"].startswith("the first is '")


def test_weights_that_are_wrong_behind_the_tokenizer_are_refused(
    text_classifier: Path, keep_only: Callable[..., None], rehash: Callable[[Path], None]
) -> None:
    def scaled(graph: Any) -> None:
        tensor = next(t for t in graph.initializer if t.name.endswith("layer.0.output.dense.weight.T"))
        values = np.frombuffer(tensor.raw_data, "<f4") * np.float32(1.05)
        tensor.raw_data = values.tobytes()

    keep_only(text_classifier, "onnx/fp32-text")
    tamper(text_classifier / "onnx" / "model_text.onnx", scaled)
    rehash(text_classifier)
    assert main(["verify", str(text_classifier), "--json"]) == 1


def test_the_export_refuses_a_tokenizer_that_differs(
    classifier_model: Path, tmp_path: Path, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate of the export, with the operator's own normalizer behind the table's back: "İ" stays what it is."""
    from exporters.formats.onnx.text import wordpiece
    from exporters.formats.onnx.text.characters import Characters, characters

    def without_dotted_i(*parts: str) -> Characters:
        table = characters(*parts)
        assert table
        single = {c: found for c, found in table.single.items() if c != "İ"}
        return Characters(single, table.dropped, table.spaces, table.alone, table.mark)

    monkeypatch.setattr(wordpiece, "characters", without_dotted_i)
    out = str(tmp_path / "out" / "bundle")
    command = ("export", str(classifier_model), "--task", "text-classification", "--formats", "onnx", "-o", out)
    code, kind, message = answer(*command, "--recipe", "fp32", "--text-input")
    assert (code, kind) == (1, "VerificationFailed")
    assert "onnx/fp32-text tokenize: texts whose ids differ in the graph is 2" in message
    assert "the first is 'Żółć" in message
    assert not list((tmp_path / "out").iterdir())


def test_what_is_no_text_is_refused(text_classifier: Path) -> None:
    classifier = mobile_llm.load(text_classifier, "onnx/fp32-text")
    with pytest.raises(InvalidInput, match="NUL"):
        classifier.classify("a\0b")
    with pytest.raises(InvalidInput, match="should be a str, not int"):
        classifier.classify([3])
    with pytest.raises(InvalidInput, match="onnx/fp32-text takes strings, one text each, and no pairs; choose"):
        classifier.classify(("good", "bad"))
    with pytest.raises(InvalidInput, match="no text was given"):
        classifier.classify([])


def test_the_fuzz_lists_what_differs(
    text_classifier: Path,
    rehash: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["fuzz", str(text_classifier), "--strings", "150", "--artifact", "onnx/fp32-text", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert fuzz_text_input.main() == 0
    (clean,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (clean["ids_differ"], clean["labels_differ"], clean["largest_difference"]) == ([], [], 0)
    assert clean["truncated"] > 0

    def reversed_ids(graph: Any) -> None:
        vocabulary = _attribute(graph, "BertTokenizer", "vocab_file")
        lines = vocabulary.s.decode().split("\n")
        vocabulary.s = "\n".join([*lines[:5], *reversed(lines[5:-1]), lines[-1]]).encode()

    tamper(text_classifier / "onnx" / "model_text.onnx", reversed_ids)
    rehash(text_classifier)
    assert fuzz_text_input.main() == 1
    (wrong,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert wrong["labels_differ"]
    assert set(wrong["labels_differ"]) <= set(wrong["ids_differ"])


def test_latency_is_measured_of_artifacts_that_take_ids(text_classifier: Path) -> None:
    bundle = Bundle.open(text_classifier)
    assert measure.measurable(bundle) == ["onnx/fp32", "onnx/int8"]
    assert measure.longest_of(bundle, measure.measurable(bundle)) == 64
    with pytest.raises(InvalidInput, match="onnx/int8-text takes text and is not timed by length"):
        measure.longest_of(bundle, ["onnx/int8-text"])


def test_the_tokenizer_of_the_bundle_is_what_the_graph_holds(text_classifier: Path) -> None:
    """Not only the folder it was exported from."""
    tokenizer, inside = TextTokenizer(Bundle.open(text_classifier)), in_graph(text_classifier)
    assert all(list(tokenizer.encode(text).ids) == inside(text) for text in GOLDEN)
