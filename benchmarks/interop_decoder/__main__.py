"""`python -m benchmarks.interop_decoder BUNDLE`: see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.interop_decoder import __doc__ as about
from benchmarks.interop_decoder.client import ask, install
from benchmarks.interop_decoder.compare import Row, compare
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable, InvalidInput, MobileLlmError


def main() -> int:
    args = _arguments()
    try:
        rows = list(_rows(Bundle.open(args.bundle), args.work, args.threads))
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2))
    else:
        _print(rows)
    return int(any(row.verdict == "FAIL" for row in rows))


def _rows(bundle: Bundle, work: Path, threads: int) -> Iterator[Row]:
    ids = [i for i, artifact in bundle.manifest.artifacts.items() if artifact.format == "litertlm"]
    if not ids:
        raise InvalidInput(f"{bundle.folder.name} has no LiteRT-LM artifact; export it with --formats litertlm")
    try:
        python = install(work / "litert-lm")
    except BackendUnavailable as error:
        yield from (Row(artifact_id, "everything", 0, 0, "NOT CHECKED", str(error)) for artifact_id in ids)
        return
    for artifact_id in ids:
        try:
            yield from compare(bundle, artifact_id, partial(ask, python), threads)
        except BackendUnavailable as error:
            yield Row(artifact_id, "everything", 0, 0, "FAIL", str(error))


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        note = f": {row.note}" if row.note else ""
        print(f"{row.verdict:11} {row.artifact:14} {row.what}, {row.differ} of {row.compared} differ{note}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interop_decoder", description=(about or "").splitlines()[0]
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/interop"), metavar="FOLDER", help="installs go here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
