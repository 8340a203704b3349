"""From labelled data to a trained folder, on `transformers.Trainer`: epochs of length-bucketed batches, linear decay
after a warm-up, a checkpoint after each epoch until the result is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.data import Dataset, Labelled, TokenDataset, are_pairs, load_labelled
from exporters.finetuning import processes
from exporters.finetuning.checkpoints import STATE, kept_checkpoints, last_checkpoint
from exporters.finetuning.model import bfloat16_helps, has_accelerator, load_model
from exporters.finetuning.result import save_result
from exporters.finetuning.spec import FinetuneSpec
from exporters.finetuning.tasks import task_of
from exporters.progress import Meter, no_meter
from exporters.sources.folder import find_folder
from exporters.sources.huggingface import load_tokenizer
from exporters.sources.quiet import quiet
from exporters.staging import holds, refuse_taken, staged_folder
from mobile_llm.errors import InvalidInput


@dataclass(frozen=True)
class FinetuneResult:
    """The folder that now exists. `score` is the metric (exporters/finetuning/tasks.py) on the evaluation data, None
    where there was none."""

    folder: Path
    examples: int
    labels: tuple[str, ...]
    metric: str
    score: float | None


def run_finetune(spec: FinetuneSpec, meter: Meter = no_meter) -> FinetuneResult:
    """Fine-tune as `spec` asks.

    Raises OutputExists, InvalidInput for unusable data, ModelNotFound, UnsupportedModel. After Ctrl-C or a crash
    the checkpoints stay beside the output, for `resume`.
    """
    refuse_taken(spec.output, spec.force)
    train, held_out = read_data(spec)
    folder = find_folder(spec.model)
    with quiet(), processes.ended_as_by_ctrl_c(), _places(spec) as staging:
        trainer = make_trainer(folder, train, held_out, spec, meter)
        trainer.train(resume_from_checkpoint=last_checkpoint(spec))
        metric = task_of(spec).metric
        score = trainer.evaluate()[f"eval_{metric}"] if held_out else None
        if staging is not None:
            save_result(trainer.model, folder, staging, spec, {"examples": len(train), metric: score})
    return FinetuneResult(spec.output, len(train), train.label_names, metric, score)


@contextmanager
def _places(spec: FinetuneSpec) -> Iterator[Path | None]:
    """The folder for the result, with checkpoints beside it; None in every process but the first. (The others meet
    the first when their Trainers are made, which is after it has looked at what is there.)"""
    if not processes.is_first():
        yield None
        return
    with kept_checkpoints(spec), staged_folder(spec.output, spec.force, ours=holds(STATE)) as staging:
        yield staging


def read_data(spec: FinetuneSpec) -> tuple[Labelled, Labelled | None]:
    """Training and evaluation rows with the same labels, both of pairs or neither. Raises InvalidInput for data with a
    single label where one is chosen."""
    train = _read(spec, spec.data)
    held_out = _read(spec, spec.eval_data) if spec.eval_data else None
    if isinstance(train, (Dataset, TokenDataset)) and len(train.label_names) < 2:
        raise InvalidInput(f"{spec.data} has a single label ({train.label_names[0]!r}); it takes two to classify")
    if held_out:
        held_out = held_out.with_label_names(train.label_names)
        _refuse_half_pairs(train, held_out)
    if spec.rename:
        train = train.renamed(spec.rename)
        held_out = held_out.renamed(spec.rename) if held_out else None
    return train, held_out


def _refuse_half_pairs(train: Labelled, held_out: Labelled) -> None:
    if _has_pairs(train) != _has_pairs(held_out):
        pairs, single = (train, held_out) if _has_pairs(train) else (held_out, train)
        raise InvalidInput(
            f"{pairs.source} holds pairs of texts and {single.source} single texts; give both a column of second "
            "texts, or neither"
        )


def _has_pairs(data: Labelled) -> bool:
    return not isinstance(data, TokenDataset) and are_pairs(data.texts)


def _read(spec: FinetuneSpec, source: str) -> Labelled:
    return load_labelled(spec.task, spec.problem_type, source, spec.columns)


def make_trainer(folder: Path, train: Labelled, held_out: Labelled | None, spec: FinetuneSpec, meter: Meter) -> Any:
    """A Trainer that is ready to run."""
    import transformers
    from transformers import EarlyStoppingCallback, TrainingArguments

    from exporters.finetuning.meter import LossLog, MeterCallback
    from exporters.finetuning.sampling import BucketTrainer

    tokenizer, task = load_tokenizer(folder), task_of(spec)
    steps = -(-len(train) // (spec.batch_size * spec.accumulation * processes.count())) * spec.epochs
    arguments = TrainingArguments(
        output_dir=str(spec.checkpoints),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.rate,
        weight_decay=spec.weight_decay,
        warmup_steps=int(spec.warmup * steps),
        bf16=bfloat16_helps(),
        use_cpu=not has_accelerator(),
        seed=spec.seed,
        eval_strategy="epoch" if held_out else "no",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=held_out is not None,
        metric_for_best_model=task.metric if held_out else None,
        logging_strategy="steps" if spec.log else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
    stopping = [EarlyStoppingCallback(spec.patience)] if held_out else []
    logs = [LossLog(spec.log)] if spec.log and processes.is_first() else []
    trainer = BucketTrainer(
        model=load_model(folder, train.label_names, _has_pairs(train), spec),
        args=arguments,
        train_dataset=task.examples(train, tokenizer, spec.max_length),
        eval_dataset=task.examples(held_out, tokenizer, spec.max_length) if held_out else None,
        data_collator=getattr(transformers, task.collator)(tokenizer),
        compute_metrics=task.measure(train.label_names),
        callbacks=[MeterCallback(meter, task.metric), *stopping, *logs],
    )
    _drop_printers(trainer)
    return trainer


def _drop_printers(trainer: Any) -> None:
    """Results and progress are shown by us; the Trainer's own callbacks would print them to stdout."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
