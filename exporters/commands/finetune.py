"""`mobile-llm finetune`: a pretrained model and labelled data in, a model to export out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "fine-tune a model on labelled texts or pairs of texts, or texts with labelled words"
EXTRA = "finetune"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a Hugging Face model folder, or a hub id")
    parser.add_argument("--task", required=True, help="text-classification or token-classification")
    parser.add_argument(
        "--problem-type",
        metavar="NAME",
        help="of text-classification: single_label_classification (default), multi_label_classification (any number of "
        "labels: a|b in CSV, a list in JSONL), regression (a number)",
    )
    parser.add_argument(
        "--data", required=True, metavar="SOURCE", help="a .csv, .jsonl or CoNLL file, or package:NAME/PATH"
    )
    parser.add_argument("--eval-data", metavar="SOURCE", help="rows to measure after each epoch; the best is kept")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder of the trained model")
    parser.add_argument("--text-column", metavar="NAME", help="default: text, or tokens where words are labelled")
    parser.add_argument("--text-pair-column", metavar="NAME", help="of the second texts of pairs; default: text_pair")
    parser.add_argument("--label-column", metavar="NAME", help="default: label, or tags")
    parser.add_argument(
        "--label-names", default="", metavar="OLD=NEW,…", help="other strings for labels: 0=negative,1=positive"
    )
    parser.add_argument("--method", default="full", metavar="NAME", help="full or lora; default: full")
    parser.add_argument("--merge", action="store_true", help="with lora: fold the adapter into the weights")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--accumulation", type=int, default=1, metavar="N", help="batches per step; default: 1")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="default: 1e-4, for lora 1e-3")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="default: 0.01")
    parser.add_argument("--patience", type=int, default=2, metavar="N", help="epochs without gain before stopping")
    parser.add_argument("--max-length", type=int, default=256, metavar="N", help="tokens of a text; default: 256")
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="of lora; default: 16")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--loss-log", metavar="FILE", help="write the loss of every step, one JSON line each")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run from its last epoch")
    parser.add_argument("--force", action="store_true", help="replace an existing result or unfinished run")


def run(args: argparse.Namespace) -> int:
    from exporters.finetuning.processes import is_first, told_once
    from exporters.finetuning.training import run_finetune
    from exporters.progress import metered, unmetered
    from mobile_llm.commands import print_json
    from mobile_llm.problem_types import REGRESSION

    with metered() if is_first() else unmetered() as meter:
        result = told_once(lambda: run_finetune(_spec(args), meter))
    if not is_first():
        return 0
    document = {
        "model": str(result.folder),
        "examples": result.examples,
        "labels": list(result.labels),
        "metric": result.metric,
        result.metric: result.score,
    }
    if args.json:
        print_json(document)
    else:
        measured = "not measured (no --eval-data)" if result.score is None else f"{result.score:.4f}"
        labels = "numbers" if args.problem_type == REGRESSION else f"labels {', '.join(result.labels)}"
        sys.stdout.write(f"{result.folder}: {result.examples} rows, {labels}\n")
        sys.stdout.write(f"{result.metric} on the evaluation data: {measured}\n")
    return 0


def _spec(args: argparse.Namespace) -> Any:
    from pathlib import Path

    from exporters.finetuning.spec import FinetuneSpec

    return FinetuneSpec(
        model=args.model,
        task=args.task,
        data=args.data,
        output=Path(args.output),
        eval_data=args.eval_data,
        problem_type=args.problem_type,
        text_column=args.text_column,
        text_pair_column=args.text_pair_column,
        label_column=args.label_column,
        rename=_pairs(args.label_names),
        method=args.method,
        merge=args.merge,
        epochs=args.epochs,
        batch_size=args.batch_size,
        accumulation=args.accumulation,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        patience=args.patience,
        max_length=args.max_length,
        rank=args.rank,
        seed=args.seed,
        log=Path(args.loss_log) if args.loss_log else None,
        resume=args.resume,
        force=args.force,
    )


def _pairs(text: str) -> dict[str, str]:
    from mobile_llm.errors import InvalidSpec

    pairs = [part.partition("=") for part in text.split(",") if part]
    for old, equals, new in pairs:
        if not (old and equals and new):
            raise InvalidSpec(f"{old + equals + new!r} in --label-names is not OLD=NEW, such as 0=negative")
    return {old: new for old, _, new in pairs}
