"""A whole bundle against the golden references: its tokenizer, its labels, then every artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tokenizers

from exporters.memory import new_garbage_only
from exporters.metrics import largest_difference
from exporters.verification.artifacts import check_artifact
from exporters.verification.rows import Row, Status, failures, here, sentence
from exporters.verification.text_input import check_text_artifact
from exporters.verification.tokens import count_row, tokenizer_rows
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.codec import read_json
from mobile_llm.bundle.golden import GOLDEN_JSON, GOLDEN_TENSORS, Golden
from mobile_llm.errors import IntegrityFailed, InvalidInput, VerificationFailed, WrongTask
from mobile_llm.tasks.encoding import ENCODE_TEXT
from mobile_llm.tasks.tokenization import TextTokenizer

Watch = Callable[[str], None]
TENSOR_TASK, GENERATION = "tensor", "text-generation"


def check_bundle(bundle: Bundle, golden: Golden, watch: Watch = lambda _: None) -> list[Row]:
    """Every row there is; `watch` is told what is being compared."""
    watch("tokenizer and labels")
    where = here(f"tokenizers {tokenizers.__version__}")
    rows = list(tokenizer_rows(TextTokenizer(bundle), golden.inputs.texts, where)) + list(_config_labels(bundle))
    for artifact_id in bundle.manifest.artifacts:
        watch(artifact_id)
        rows += _checker(bundle, artifact_id)(bundle, artifact_id, golden)
    return rows


def _checker(bundle: Bundle, artifact_id: str) -> Callable[[Bundle, str, Golden], Iterator[Row]]:
    """By what goes in: ids, or text."""
    takes_text = ENCODE_TEXT in bundle.manifest.artifacts[artifact_id].entry_points
    return check_text_artifact if takes_text else check_artifact


@new_garbage_only()
def check_again(bundle: Bundle, model: str | None, watch: Watch) -> list[Row]:
    """Compare a finished bundle once more: with the golden references in it, or, given the model it came
    from, with references taken anew, to which the bundled ones must be equal."""
    for artifact in bundle.manifest.artifacts.values():
        bundle.check_artifact(artifact)
    if bundle.manifest.task.name == TENSOR_TASK:
        return _check_tensors(bundle, model, watch)
    if bundle.manifest.task.name == GENERATION:
        return _check_writing(bundle, model, watch)
    golden = read_golden(bundle)
    if model is None:
        return check_bundle(bundle, golden, watch)
    watch(f"asking {model} for reference answers")
    fresh = _ask_model(bundle, model)
    return list(compare_golden(golden, fresh)) + check_bundle(bundle, fresh, watch)


def _check_tensors(bundle: Bundle, model: str | None, watch: Watch) -> list[Row]:
    from exporters.verification import tensors

    if model is not None:
        raise WrongTask(f"{bundle.folder.name} came from a model in memory; leave out --model, or export it again")
    return tensors.check_tensors(bundle, tensors.read_golden(bundle), watch)


def _check_writing(bundle: Bundle, model: str | None, watch: Watch) -> list[Row]:
    from exporters.verification.decoders import check_writing_bundle, read_golden

    golden = read_golden(bundle)
    if model is None:
        return check_writing_bundle(bundle, golden, watch)
    from exporters.decoders.again import compare_with_model

    return compare_with_model(bundle, golden, model, watch)


def read_golden(bundle: Bundle) -> Golden:
    """The bundle's golden references. Raises IntegrityFailed where they lack what its artifacts give."""
    for name in (GOLDEN_JSON, GOLDEN_TENSORS):
        bundle.own_file(name)
    golden = Golden.read(bundle.folder)
    entries = (e for a in bundle.manifest.artifacts.values() for role in a.entry_points.values() for e in role)
    named = {name for entry in entries for name in entry.outputs} - {"input_ids"}  # compared with the texts' ids
    missing = sorted({f"reference/{name}" for name in named} - set(golden.outputs))
    if missing:
        raise IntegrityFailed(f"{GOLDEN_TENSORS} has no {missing[0]}; export the bundle again")
    return golden


def gate(rows: list[Row], strict: bool) -> None:
    """Raises VerificationFailed naming every row that forbids the bundle."""
    bad = failures(rows, strict)
    if bad:
        listed = "\n".join(f"  {sentence(row)}" for row in bad[:12])
        more = f"\n  and {len(bad) - 12} more" if len(bad) > 12 else ""
        raise VerificationFailed(f"{len(bad)} of {len(rows)} comparisons failed:\n{listed}{more}")


def compare_golden(bundled: Golden, fresh: Golden) -> Iterator[Row]:
    """The golden references in a bundle against the same taken anew from the model: a bundle must not attest
    to another model. Only what both have is compared."""
    where = here("PyTorch")
    same_inputs = bundled.inputs == fresh.inputs
    yield count_row("golden references", "texts and labels that differ", 0 if same_inputs else 1, where)
    for name, expected in fresh.outputs.items():
        found = bundled.outputs.get(name)
        if found is None or not name.startswith("reference/"):
            continue
        value = largest_difference(found, expected) if found.shape == expected.shape else float("inf")
        status: Status = "passed" if value <= 1e-4 else "failed"
        reason = "the same model on the same kind of machine; 1e-4 allows for another CPU"
        yield Row("bundle", "golden references", f"largest difference of {name}", value, 1e-4, status, reason, where)


def _ask_model(bundle: Bundle, model: str) -> Golden:
    from exporters.architectures import describe
    from exporters.architectures.blocks import Pooling
    from exporters.sources.huggingface import open_source
    from exporters.spec import pooling_mode
    from exporters.verification.golden import make_golden

    task = bundle.manifest.task
    pooling = Pooling(pooling_mode(task.pooling), bool(task.normalize)) if task.pooling else None
    source = open_source(model, task.name, pooling, task.text_pairs)
    return make_golden(source, describe(source.model, task.name, source.pooling), list(bundle.manifest.artifacts))


# What transformers takes where config.json has no labels, and so leaves out of it.
_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}


def _config_labels(bundle: Bundle) -> Iterator[Row]:
    """Other clients read the labels and what they mean from config.json: they must be those of the manifest."""
    labels = bundle.manifest.task.labels
    if not labels:
        return
    config = _config(bundle)
    named = config.get("id2label", _UNNAMED)
    if not isinstance(named, dict):
        raise IntegrityFailed("config.json has no id2label that could be read; fetch the bundle again")
    wrong = sum(named.get(str(index)) != label for index, label in enumerate(labels))
    wrong += abs(len(named) - len(labels))
    yield count_row("labels", "labels that differ from config.json", wrong, here("json"))
    stated = config.get("problem_type")
    if stated is not None and bundle.manifest.task.problem_type is not None:
        wrong = int(stated != bundle.manifest.task.problem_type)
        yield count_row("labels", "problem_type that differs from config.json", wrong, here("json"))


def _config(bundle: Bundle) -> dict[str, Any]:
    try:
        config = read_json(bundle.own_file("config.json"))
    except InvalidInput as error:
        raise IntegrityFailed(f"{error}; fetch the bundle again") from None
    if not isinstance(config, dict):
        raise IntegrityFailed("config.json has no id2label that could be read; fetch the bundle again")
    return config
