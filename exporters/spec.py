"""What is asked for: typed, frozen, and refused where it contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from exporters.architectures.blocks import Pooling, PoolingMode
from exporters.data import Columns
from mobile_llm.errors import InvalidSpec

TASKS = ("text-classification", "token-classification", "feature-extraction", "text-generation")
GENERATION = "text-generation"
LABELLED = ("text-classification", "token-classification")
FORMATS = ("onnx", "tflite", "coreml")
FORMATS_OF_GENERATION = (*FORMATS, "litertlm")
RECIPES = ("fp32", "fp16", "int8", "int4")
# What the name of a Core ML artifact for the Neural Engine ends in; it has the weights of the one without.
NEURAL_ENGINE = "-ane"
# What an artifact that takes strings can answer: an answer about the whole text.
TEXT_INPUT_TASKS = ("text-classification", "feature-extraction")
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)


@dataclass(frozen=True)
class ExportSpec:
    """One export. `model` is a folder, a hub id or a GGUF file; each recipe is written in each format.

    Columns are by default those of the task's data (`text`, `text_pair` and `label`, of words `tokens` and `tags`).
    `text_pairs` says that the model takes pairs of texts, where its config does not.
    `pooling` replaces what the model's modules.json says; `eval_data` are labelled rows on which every
    artifact's accuracy is compared; `strict` makes `not_checked` a failure; `text_input` adds to each ONNX artifact
    one that takes strings; `context` is how many tokens a model that writes has room for. `calibration` is a text file
    by which int4 is computed, `max_size` how many MB such an artifact may take, and `max_kl` instead of it how far its
    weights may move the model's distribution, in nats per token. `neural_engine` adds to each Core ML artifact of a
    model that writes, but for fp32, one of fixed lengths. `adapters` are folders of LoRA adapters, merged into the
    model in their order.
    """

    model: str
    task: str
    output: Path
    formats: tuple[str, ...] = FORMATS
    recipes: tuple[str, ...] = ("fp32", "int8")
    pooling: Pooling | None = None
    eval_data: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    text_pair_column: str | None = None
    text_pairs: bool = False
    force: bool = False
    strict: bool = False
    text_input: bool = False
    context: int | None = None
    calibration: str | None = None
    max_size: float | None = None
    max_kl: float | None = None
    adapters: tuple[str, ...] = ()
    neural_engine: bool = False

    def __post_init__(self) -> None:
        _one_of("task", (self.task,), TASKS)
        _one_of("format", self.formats, FORMATS_OF_GENERATION)
        _one_of("recipe", self.recipes, RECIPES)
        if self.eval_data and self.task not in LABELLED:
            raise InvalidSpec(f"accuracy needs labels, and {self.task} has none; leave out the evaluation data")
        if self.pooling and self.task != "feature-extraction":
            raise InvalidSpec(f"pooling belongs to feature-extraction, not to {self.task}; leave it out")
        if (self.text_pairs or self.text_pair_column) and self.task != "text-classification":
            raise InvalidSpec(f"pairs of texts are for text-classification, not for {self.task}; leave them out")
        if self.text_pair_column and not self.eval_data:
            raise InvalidSpec("the column of second texts is that of the evaluation data; pass both or neither")
        if self.text_input:
            check_text_input(self.task, self.formats)
        if self.task != GENERATION:
            _only_for_generation(self.context, self.recipes, self.formats)
        elif self.context is not None and self.context < 2:
            raise InvalidSpec(f"a context of {self.context} has no room for a prompt and an answer; give at least 2")
        _check_calibration(self.calibration, self.task, self.recipes)
        _check_budget(self.max_size, self.max_kl, self.calibration, self.recipes)
        if self.neural_engine:
            _check_neural_engine(self.task, self.formats, self.recipes)

    @property
    def artifact_ids(self) -> list[str]:
        """Of what is written, but for what `text_input` adds: those of a recipe together."""
        return [artifact_id for recipe in self.recipes for artifact_id in self._of_recipe(recipe)]

    def _of_recipe(self, recipe: str) -> list[str]:
        ids = [f"{name}/{recipe}" for name in self.formats]
        added = self.neural_engine and recipe != "fp32"
        return [*ids, f"coreml/{recipe}{NEURAL_ENGINE}"] if added else ids

    @property
    def columns(self) -> Columns:
        """Those of the evaluation data."""
        return Columns(self.text_column, self.label_column, self.text_pair_column)


def check_text_input(task: str, formats: tuple[str, ...]) -> None:
    """Raises InvalidSpec where no artifact could take strings."""
    if "onnx" not in formats:
        raise InvalidSpec(f"text input is for ONNX, and the formats are {', '.join(formats)}; add onnx or leave it out")
    if task not in TEXT_INPUT_TASKS:
        raise InvalidSpec(f"text input is for {' and '.join(TEXT_INPUT_TASKS)}, not for {task}; leave it out")


def recipe_of(artifact_id: str) -> str:
    """The recipe whose weights an artifact holds: `int8` of `coreml/int8-ane`."""
    return artifact_id.split("/")[1].split("-")[0]


def _check_neural_engine(task: str, formats: tuple[str, ...], recipes: tuple[str, ...]) -> None:
    if task != GENERATION:
        raise InvalidSpec(
            f"artifacts of their own for the Neural Engine are for {GENERATION}, not for {task}; leave them out"
        )
    if "coreml" not in formats:
        raise InvalidSpec(f"the Neural Engine runs Core ML, and the formats are {', '.join(formats)}; add coreml")
    if recipes == ("fp32",):
        raise InvalidSpec("the Neural Engine computes in float16; add one of the recipes fp16, int8, int4")


def _only_for_generation(context: int | None, recipes: tuple[str, ...], formats: tuple[str, ...]) -> None:
    if context is not None:
        raise InvalidSpec(f"a context is for {GENERATION}; leave it out")
    if "int4" in recipes:
        raise InvalidSpec(f"int4 is for {GENERATION}; an encoder loses too much by it: choose int8")
    if "litertlm" in formats:
        raise InvalidSpec(f"litertlm is for {GENERATION}, LiteRT-LM runs nothing else; choose tflite")


def _check_calibration(calibration: str | None, task: str, recipes: tuple[str, ...]) -> None:
    if calibration is not None and (task != GENERATION or not {"int4", "int8"} & set(recipes)):
        raise InvalidSpec(
            f"calibration is for {GENERATION} in int4 or int8; add a recipe, or leave out the calibration"
        )


def _check_budget(
    max_size: float | None, max_kl: float | None, calibration: str | None, recipes: tuple[str, ...]
) -> None:
    """What decides how many layers of int4 stay in 8 bits."""
    if max_size is None and max_kl is None:
        return
    if max_size is not None and max_kl is not None:
        raise InvalidSpec("layers stay in 8 bits up to a size or down to a divergence; give one of the two")
    what = "size" if max_kl is None else "divergence"
    if "int4" not in recipes:
        raise InvalidSpec(
            f"a largest {what} is for int4, whose layers may stay in 8 bits; add the recipe int4, or no {what}"
        )
    if calibration is None:
        raise InvalidSpec(
            f"a largest {what} is kept by what calibration finds out; give a calibration text, or no {what}"
        )
    if max_size is not None and not 0 < max_size < float("inf"):
        raise InvalidSpec(f"{max_size:g} MB is no size; give a number above 0")
    if max_kl is not None and not 0 < max_kl < float("inf"):
        raise InvalidSpec(f"{max_kl:g} nats are no divergence; give a number above 0")


def pooling_mode(name: str) -> PoolingMode:
    """A pooling mode by name. Raises InvalidSpec for an unknown one."""
    for mode in POOLING_MODES:
        if mode == name:
            return mode
    raise InvalidSpec(f"unknown pooling {name!r}; choose from {', '.join(POOLING_MODES)}")


def _one_of(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not given:
        raise InvalidSpec(f"no {what} was asked for; choose from {', '.join(known)}")
    for name in given:
        if name not in known:
            raise InvalidSpec(f"unknown {what} {name!r}; choose from {', '.join(known)}")
    if len(set(given)) < len(given):
        raise InvalidSpec(f"a {what} is named twice in {', '.join(given)}")
