"""`python -m benchmarks.interop BUNDLE MODEL`: see the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.interop import __doc__ as about
from benchmarks.interop.compare import compare
from benchmarks.interop.printing import finite, print_report
from mobile_llm.errors import MobileLlmError


def main() -> int:
    args = _arguments()
    try:
        report = compare(args)
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"clients": report.clients, "rows": [finite(row) for row in report.rows]}, indent=2))
    else:
        print_report(report)
    return int(any(row.verdict == "FAIL" for row in report.rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interop", description=(about or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("model", type=Path, nargs="?", help="the model it came from; not for text-generation")
    parser.add_argument("--clients", default="", metavar="NAMES", help="default: all that read models of this task")
    parser.add_argument("--work", type=Path, default=Path("build/interop"), metavar="FOLDER", help="installs go here")
    parser.add_argument("--optimum-python", type=Path, metavar="PATH", help="an interpreter that has optimum-onnx")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.clients = [name for name in args.clients.split(",") if name]
    return args


if __name__ == "__main__":
    sys.exit(main())
