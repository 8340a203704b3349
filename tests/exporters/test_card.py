"""The bundle's README.md: what it is, from what, under which licence, how near to its limits, what nobody checked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import exporters
from exporters.card import FINETUNING, SOURCE_CARD, keep_origin, source_header, write_card
from exporters.verification.rows import Row, not_checked
from mobile_llm.bundle import Bundle

OWN = """---
license: apache-2.0
language: de
datasets:
- snli
base_model: someone/base
---
# The model's own words
Do not use it for medical advice.
"""


def _row(artifact: str, metric: str, value: float, limit: float, reason: str = "noise") -> Row:
    return Row(artifact, "encode", metric, value, limit, "passed", reason, "onnxruntime, Linux")


def _card(bundle: Path, rows: Sequence[Row] = ()) -> str:
    write_card(Bundle.open(bundle), rows)
    return (bundle / "README.md").read_text(encoding="utf-8")


def test_an_export_leaves_a_card_that_no_hash_binds(classifier_bundle: Path) -> None:
    """A person who publishes it adds words; the bundle must stay whole."""
    card, bundle = classifier_bundle / "README.md", Bundle.open(classifier_bundle)
    text = card.read_text(encoding="utf-8")
    for artifact_id, artifact in bundle.manifest.artifacts.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| [{artifact_id}]({artifact.path})")]
        assert f"{artifact.size / 1e6:.1f}" in line
        assert re.search(r"\(limit [\d.e-]+\) \| \d+ passed", line)
    assert bundle.manifest.origin.weights_sha256 in text
    assert "README.md" not in {file.path for file in bundle.manifest.files}
    card.write_text(text + "more words\n", encoding="utf-8")
    for artifact in bundle.manifest.artifacts.values():
        bundle.check_artifact(artifact)


def test_the_models_own_card_is_kept_whole_and_its_header_taken_over(embedder_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder_model, tmp_path / "model"))
    (folder / "README.md").write_text(OWN, encoding="utf-8")
    bundle = exporters.export(folder, "feature-extraction", tmp_path / "bundle", ("onnx",), ("fp32",)).bundle
    assert (bundle / SOURCE_CARD).read_text(encoding="utf-8") == OWN
    assert SOURCE_CARD in {file.path for file in Bundle.open(bundle).manifest.files}
    header = source_header(bundle / "README.md")
    assert {key: header[key] for key in ("license", "language", "datasets", "base_model")} == {
        "license": "apache-2.0", "language": "de", "datasets": ["snli"], "base_model": "someone/base",
    }  # fmt: skip
    assert (header["pipeline_tag"], header["tags"]) == ("feature-extraction", ["mobile-llm", "onnx"])
    assert 'pipeline("feature-extraction", "BUNDLE", { dtype: "fp32" })' in (bundle / "README.md").read_text()


def test_a_licence_that_nobody_stated_is_asked_for(classifier_bundle: Path) -> None:
    text = _card(classifier_bundle)
    assert "Licence of the model: **not stated: find out before you publish**" in text
    assert "Licence of the data it was trained on: **not stated" in text


def test_what_was_not_checked_is_named_with_its_reason(classifier_bundle: Path) -> None:
    text = _card(classifier_bundle, [not_checked("coreml/int8", "encode", "parity", "operator 'frob' is unknown")])
    assert "- **NOT CHECKED: parity** of coreml/int8: operator 'frob' is unknown" in text
    assert "NOT CHECKED: on a phone" in text
    assert "NOT CHECKED: in Core ML itself" in text
    assert "| **nothing was checked** | none |" in text  # the other artifacts


def test_the_figure_nearest_to_its_limit_is_shown(classifier_bundle: Path) -> None:
    far, near = _row("onnx/fp32", "relative_error", 1e-9, 1e-4), _row("onnx/fp32", "largest_difference", 9e-5, 1e-4)
    text = _card(classifier_bundle, [far, near])
    assert "| largest difference 9e-05 (limit 0.0001) | 2 passed |" in text


def test_accuracy_is_a_column_where_it_was_measured(classifier_bundle: Path) -> None:
    assert "points lost" not in _card(classifier_bundle)
    text = _card(classifier_bundle, [_row("onnx/int8", "points of accuracy lost", 0.2, 0.5, "900 rows; a reason")])
    assert "| +0.20 (900 rows) |" in text
    assert text.count("| not measured |") == 5


def test_a_fine_tuning_is_told_without_the_places_on_this_machine(classifier_bundle: Path, tmp_path: Path) -> None:
    record = {
        "examples": 7700, "accuracy": 0.9, "model": "/home/me/minilm", "data": "/home/me/secret/train.csv",
        "eval_data": "package:reviews/eval.csv", "method": "full", "epochs": 3, "seed": 0,
    }  # fmt: skip
    (tmp_path / "finetune.json").write_text(json.dumps(record), encoding="utf-8")
    keep_origin(tmp_path, classifier_bundle)
    text = _card(classifier_bundle)
    assert "Fine-tuned from `minilm` on 7700 rows of `train.csv` (full, 3 epochs, seed 0)" in text
    assert "accuracy 0.9000 on `package:reviews/eval.csv`" in text
    assert "/home" not in text + (classifier_bundle / FINETUNING).read_text(encoding="utf-8")


@pytest.mark.parametrize("header", ["---\n: [\n---\n", "no header", "---\n- a list\n---\n", ""])
def test_a_header_that_cannot_be_read_adds_nothing(header: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(header, encoding="utf-8")
    assert source_header(tmp_path / "README.md") == {}
