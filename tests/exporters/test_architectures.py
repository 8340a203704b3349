"""Every architecture, with tiny random weights, in all three formats, compared with transformers as any export is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers

import exporters
import mobile_llm
from exporters.architectures import known
from tests.conftest import feed_token_types

Make = Callable[..., Path]
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Tiny:
    """A configuration small enough for milliseconds, with the architecture's own features on."""

    config: str
    settings: dict[str, Any] = field(default_factory=dict)


TINY = {
    "albert": Tiny("AlbertConfig", {**_SMALL, "embedding_size": 16, "num_hidden_layers": 3, "num_hidden_groups": 1}),
    "bert": Tiny("BertConfig", _SMALL),
    "deberta-v2": Tiny(
        "DebertaV2Config",
        {
            **_SMALL,
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
            "pooler_hidden_size": 32,
        },
    ),
    "distilbert": Tiny("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "electra": Tiny("ElectraConfig", {**_SMALL, "embedding_size": 16}),
    "modernbert": Tiny(
        "ModernBertConfig",
        {
            **_SMALL,
            "num_hidden_layers": 4,
            "intermediate_size": 48,
            "local_attention": 16,
            "global_attn_every_n_layers": 3,
            **dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"), 0),
        },
    ),
    "mpnet": Tiny("MPNetConfig", {**_SMALL, "pad_token_id": 1}),
    "roberta": Tiny("RobertaConfig", {**_SMALL, "type_vocab_size": 1, "pad_token_id": 1}),
    "xlm-roberta": Tiny("XLMRobertaConfig", {**_SMALL, "type_vocab_size": 1, "pad_token_id": 1}),
}


def test_every_architecture_is_tested() -> None:
    assert list(TINY) == known()


@pytest.fixture
def tiny(make_model: Make) -> Callable[..., Path]:
    def make(name: str, task: str = "text-classification", **settings: Any) -> Path:
        asked = TINY[name]
        # Random layers amplify rounding far more than trained ones: logits are kept of the size of a real model's.
        config = getattr(transformers, asked.config)
        return make_model(task, config_class=config, body=0.2, head=0.2, **asked.settings | settings)

    return make


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "feature-extraction"])
@pytest.mark.parametrize("name", list(TINY))
def test_three_formats_agree_with_transformers(name: str, task: str, tiny: Make, tmp_path: Path) -> None:
    """`export` raises where a comparison fails; what it must not do is compare nothing."""
    result = exporters.export(tiny(name, task), task, tmp_path / "bundle", recipes=("fp32", "fp16", "int8"))
    assert {row.artifact for row in result.rows if row.status == "passed"} >= set(result.artifacts)
    missing = [row for row in result.rows if row.status == "not_checked"]
    assert all(row.metric.startswith("points of ") for row in missing)


@pytest.mark.parametrize("name", list(TINY))
def test_a_number_for_a_pair_agrees_with_transformers(name: str, tiny: Make, tmp_path: Path) -> None:
    """Heads of one output, and token types where transformers feeds them."""
    folder = tiny(name, id2label={0: "likeness"}, label2id={"likeness": 0}, text_pairs=True)
    if name in ("bert", "deberta-v2", "electra"):
        feed_token_types(folder)
    bundle = exporters.export(folder, "text-classification", tmp_path / "bundle", recipes=("fp32",)).bundle
    pair = ("a good film", "the plot is terrible")
    theirs = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    expected = theirs({"text": pair[0], "text_pair": pair[1]}, function_to_apply="none")["score"]
    assert mobile_llm.load(bundle).classify(pair)[0].value == pytest.approx(expected, abs=1e-5)


def test_a_bundle_of_another_architecture_answers(tiny: Make, tmp_path: Path) -> None:
    folder = exporters.export(tiny("modernbert"), "text-classification", tmp_path / "bundle", ("onnx",)).bundle
    assert mobile_llm.load(folder).classify("a good film")[0].label
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["origin"]["architecture"] == "modernbert"
