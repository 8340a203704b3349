"""`python -m benchmarks.peers MODEL [BUNDLE]`: see the package."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import host
from benchmarks.peers import __doc__ as about
from benchmarks.peers.claims import Claim, claims
from benchmarks.peers.contestants import KINDS, Field, set_up
from benchmarks.peers.figures import Report, figures_of
from benchmarks.peers.living import size_of
from benchmarks.peers.made import bundle_of, litertlm_of, of_the_same_weights, twin_of, weights_sha256
from benchmarks.peers.printing import print_report
from benchmarks.peers.race import Race
from benchmarks.peers.text import prompts_of
from benchmarks.processes import say
from exporters.commands.values import megabytes
from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable, InvalidInput, MobileLlmError

_LENGTHS = (128, 512)
_QUANTIZATIONS = "Q4_0,Q4_1,IQ4_NL,Q4_K_S,Q4_K_M,Q5_0,Q5_K_S"


def main() -> int:
    args = _arguments()
    try:
        report = run(args)
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    found = claims(report, int(1e6 * args.largest))
    if args.json:
        print(json.dumps({**report.as_json(), "claims": [asdict(claim) for claim in found]}, indent=2))
    else:
        print_report(report, found)
    return _exit_code(report, found, args.strict)


def run(args: argparse.Namespace) -> Report:
    """Set up, measure, and say what was found. Raises MobileLlmError for input that cannot be used."""
    field = _field(args)
    prompts = prompts_of(field.model, args.text, _LENGTHS, args.tokens)
    contestants, missing = set_up(field, args.peers)
    race = Race(contestants, prompts, say)
    race.start_anew(args.starts)
    race.race(args.rounds)
    if prompts.windows:
        race.judge(field.models)
    else:
        missing["quality"] = "no text was given; add --text"
    settings = {"threads": args.threads, "context": args.context, "rounds": args.rounds, "starts": args.starts}
    settings |= {"twin": args.twin, "windows": len(prompts.windows), "lengths": _LENGTHS}
    figures = {c.name: figures_of(c, race.records[c.name]) for c in contestants}
    return Report(host(), settings, figures, race.records, missing)


def _field(args: argparse.Namespace) -> Field:
    work = args.work.absolute()
    model = args.model.absolute()
    if args.twin is not None:
        model = twin_of(model, args.twin, work)
    sha256 = weights_sha256(model)
    models = work / "models" / sha256[:12]
    models.mkdir(parents=True, exist_ok=True)
    if args.bundle:
        bundle = of_the_same_weights(Bundle.open(args.bundle), sha256)
    else:
        bundle = bundle_of(model, models, args.calibration, args.max_size)
    artifacts = _decoders(bundle, args.artifact)
    litertlm = args.litertlm or min(bundle.folder.rglob("*.litertlm"), key=size_of, default=None)
    if litertlm is None and "litert-lm" in args.peers:
        try:
            litertlm = litertlm_of(model, models)
        except BackendUnavailable as error:
            say(f"no file for LiteRT-LM: {error}")
    shared = (work, models, args.threads, args.context, tuple(args.quantizations))
    return Field(model, bundle, artifacts, *shared, litertlm)


def _decoders(bundle: Bundle, wanted: list[str]) -> tuple[str, ...]:
    """Artifacts that keep a cache and run here. Raises InvalidInput where one that is wanted does not."""
    artifacts = bundle.manifest.artifacts
    known = [name for name, artifact in artifacts.items() if artifact.cache and artifact.format in ("onnx", "tflite")]
    for name in wanted:
        if name not in known:
            raise InvalidInput(f"{name} is none of the artifacts that can be timed here: {', '.join(known)}")
    return tuple(wanted or known)


def _exit_code(report: Report, found: list[Claim], strict: bool) -> int:
    failed = any(figures.failed for figures in report.contestants.values())
    doubt = report.missing or any(claim.verdict != "holds" for claim in found)
    return int(failed or (strict and bool(doubt)))


def _listed(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(about or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("bundle", type=Path, nargs="?", help="made of MODEL, or of its twin; by default it is exported")
    parser.add_argument("--twin", type=int, metavar="SEED", help="work on a twin with permuted weights")
    parser.add_argument("--text", type=Path, metavar="FILE", help="for prompts and perplexity")
    parser.add_argument("--tokens", type=int, default=8192, metavar="N", help="of it for perplexity; default: 8192")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="for the export: another text")
    parser.add_argument("--max-size", type=megabytes, metavar="SIZE", help="for the export, with --calibration")
    parser.add_argument("--artifact", type=_listed, default=[], metavar="LIST", help="such as onnx/int4; default: all")
    parser.add_argument("--peers", type=_listed, default=list(KINDS), metavar="LIST", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--quantizations", type=_listed, default=_QUANTIZATIONS, metavar="LIST", help=_QUANTIZATIONS)
    parser.add_argument(
        "--litertlm", type=Path, metavar="FILE", help="for LiteRT-LM; default: the bundle's smallest, or one made"
    )
    parser.add_argument("--largest", type=float, default=105, metavar="MB", help="of the size class; default: 105")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--context", type=int, default=1024, metavar="N", help="room that peers set up; default: 1024")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="of prefill and decode; default: 9")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="fresh processes of each; default: 3")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), metavar="FOLDER", help="installs go here")
    parser.add_argument("--strict", action="store_true", help="exit with 1 unless every claim was checked and holds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = [name for name in args.peers if name not in KINDS]
    if unknown:
        parser.error(f"--peers: {', '.join(unknown)} is none of {', '.join(KINDS)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
