"""`mobile-llm verify`: compare a bundle again, with its golden references or with the model itself."""

from __future__ import annotations

import argparse

HELP = "compare every artifact of a bundle with its golden references, or with the model"
EXTRA = "export-coreml,tflite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--model", metavar="DIR", help="the model it came from: repeat the whole comparison")
    parser.add_argument("--strict", action="store_true", help="fail where something could not be checked")


def run(args: argparse.Namespace) -> int:
    from exporters.progress import shown
    from exporters.verification.bundles import check_again
    from exporters.verification.rows import failures
    from exporters.verification.tables import print_rows
    from mobile_llm.bundle import Bundle

    with shown() as watch:
        rows = check_again(Bundle.open(args.bundle), args.model, watch)
    print_rows(rows, args.json, {"bundle": args.bundle, "model": args.model})
    return 1 if failures(rows, args.strict) else 0
