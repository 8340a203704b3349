"""`mobile-llm export`: a model in, a verified bundle out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from exporters.commands.values import megabytes

HELP = "write a model as ONNX, TFLite and Core ML artifacts and compare each with it"
EXTRA = "export-onnx,export-tflite,export-coreml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a Hugging Face model folder, a hub id, or a GGUF file")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="DIR", help="a LoRA adapter to merge; several in their order"
    )
    parser.add_argument("--task", required=True, help="text-classification, token-classification, …")
    parser.add_argument(
        "--formats",
        default="onnx,tflite,coreml",
        metavar="LIST",
        help="default: onnx,tflite,coreml; of a model that writes also litertlm",
    )
    parser.add_argument(
        "--recipe", default="fp32,int8", metavar="LIST", help="of fp32, fp16, int8, int4; default: fp32,int8"
    )
    parser.add_argument("-o", "--output", required=True, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--pooling", metavar="MODE", help="mean, cls or max, instead of what modules.json says")
    parser.add_argument("--normalize", action="store_true", help="with --pooling: scale embeddings to length 1")
    parser.add_argument(
        "--eval-data", metavar="SOURCE", help="labelled rows to compare every artifact's task figure on"
    )
    parser.add_argument("--text-column", metavar="NAME", help="default: text, or tokens where words are labelled")
    parser.add_argument("--text-pair-column", metavar="NAME", help="of the second texts of pairs; default: text_pair")
    parser.add_argument("--label-column", metavar="NAME", help="default: label, or tags")
    parser.add_argument("--text-pairs", action="store_true", help="the model takes pairs of texts: compare it on pairs")
    parser.add_argument("--text-input", action="store_true", help="add ONNX artifacts that take strings")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="of a model that writes; default: at most 2048")
    parser.add_argument(
        "--calibration", metavar="TEXT", help="a text file by which int8 and int4 are computed, not just rounded"
    )
    parser.add_argument(
        "--max-size", type=megabytes, metavar="SIZE", help="with --calibration: of an int4 artifact, such as 80MB"
    )
    parser.add_argument(
        "--max-kl", type=float, metavar="NATS", help="with --calibration, instead: how far int4 weights may diverge"
    )
    parser.add_argument(
        "--neural-engine", action="store_true", help="of a model that writes: add Core ML artifacts of fixed lengths"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan: sizes, memory, disk, minutes")
    parser.add_argument("--strict", action="store_true", help="fail where something could not be checked")


def run(args: argparse.Namespace) -> int:
    from exporters.plan import make_plan

    spec = _spec(args)
    plan = make_plan(spec)
    sys.stderr.write("\n".join(plan.lines()) + "\n")
    plan.refuse_what_cannot_fit()
    return _planned(plan, args.json) if args.dry_run else _export(spec, args.json)


def _planned(plan: Any, as_json: bool) -> int:
    from mobile_llm.commands import print_json

    if as_json:
        print_json({"plan": plan.as_json()})
    return 0


def _export(spec: Any, as_json: bool) -> int:
    from exporters.pipeline import run_export
    from exporters.progress import shown
    from exporters.verification.tables import print_rows

    with shown() as watch:
        result = run_export(spec, watch)
    print_rows(result.rows, as_json, {"bundle": str(result.bundle), "artifacts": _sizes(result)})
    return 0


def _spec(args: argparse.Namespace) -> Any:
    from pathlib import Path

    from exporters.architectures.blocks import Pooling
    from exporters.spec import ExportSpec, pooling_mode
    from mobile_llm.errors import InvalidSpec

    if args.normalize and not args.pooling:
        raise InvalidSpec("--normalize goes with --pooling; without it modules.json decides")
    return ExportSpec(
        model=args.model,
        task=args.task,
        output=Path(args.output),
        formats=tuple(args.formats.split(",")),
        recipes=tuple(args.recipe.split(",")),
        pooling=Pooling(pooling_mode(args.pooling), args.normalize) if args.pooling else None,
        eval_data=args.eval_data,
        text_column=args.text_column,
        label_column=args.label_column,
        text_pair_column=args.text_pair_column,
        text_pairs=args.text_pairs,
        force=args.force,
        strict=args.strict,
        text_input=args.text_input,
        context=args.context,
        calibration=args.calibration,
        max_size=args.max_size,
        max_kl=args.max_kl,
        adapters=tuple(args.adapter),
        neural_engine=args.neural_engine,
    )


def _sizes(result: Any) -> dict[str, int]:
    return {artifact_id: artifact.size for artifact_id, artifact in result.artifacts.items()}
