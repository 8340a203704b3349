"""`mobile-llm evaluate`: the task itself on a user's rows, artifact by artifact, beside the PyTorch model."""

from __future__ import annotations

import argparse

HELP = "measure accuracy, F1, correlation or perplexity, and agreement, of every artifact on your data"
EXTRA = "export-onnx,export-tflite,export-coreml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument(
        "--data",
        required=True,
        metavar="SOURCE",
        help="a .csv, .jsonl or CoNLL file, or package:NAME/PATH; for a model that writes a text "
        "file, or questions with choices as .jsonl",
    )
    parser.add_argument("--model", metavar="DIR", help="the model it came from, to be measured beside")
    parser.add_argument("--artifact", default="", metavar="LIST", help="such as onnx/int8,tflite/int8; default: all")
    parser.add_argument("--text-column", metavar="NAME", help="default: text, or tokens where words are labelled")
    parser.add_argument("--text-pair-column", metavar="NAME", help="of the second texts of pairs; default: text_pair")
    parser.add_argument("--label-column", metavar="NAME", help="default: label, or tags")
    parser.add_argument("--save", metavar="FILE", help="write the figures as JSON too")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from exporters.data import Columns
    from exporters.progress import shown
    from exporters.staging import save_json
    from exporters.verification.evaluation import evaluate
    from exporters.verification.tables import print_evaluation
    from mobile_llm.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    artifacts = tuple(filter(None, args.artifact.split(",")))
    columns = Columns(args.text_column, args.label_column, args.text_pair_column)
    with shown() as watch:
        result = evaluate(bundle, args.data, args.model, artifacts, watch, columns)
    if args.save:
        save_json(Path(args.save), result.as_json())
    print_evaluation(result, args.json)
    return 0
