"""`mobile-llm benchmark`: what a bundle costs on this host, and a first estimate for phones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.cost import Cost
    from benchmarks.devices import Device
    from benchmarks.measure import Observe
    from benchmarks.predict import Prediction
    from benchmarks.result import Result
    from mobile_llm.bundle import Bundle

HELP = "measure a bundle on this machine, and estimate it for phones"
EXTRA = "benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--artifact", metavar="LIST", help="ids such as onnx/int8,tflite/int8 (default: all)")
    parser.add_argument("--lengths", default="16,64,128,256", metavar="LIST", help="tokens per pass (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the runtime (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each artifact (%(default)s)")
    parser.add_argument("--device", metavar="LIST", help="phones to estimate, by name, or all")
    parser.add_argument("--evaluation", metavar="FILE", help="JSON of `mobile-llm evaluate --json`, for the page")
    parser.add_argument("--html", metavar="FILE", help="write a page for people")
    parser.add_argument("--force", action="store_true", help="overwrite the page")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks import devices, tables
    from benchmarks.report import check_target, read_evaluation, write
    from mobile_llm.bundle import Bundle
    from mobile_llm.commands import print_json

    # Everything that can be refused is refused before the minute of measuring.
    bundle = Bundle.open(args.bundle)
    chosen = devices.select(_list(args.device)) if args.device else {}
    if args.html:
        check_target(args.html, args.force)
    evaluation = read_evaluation(args.evaluation, bundle) if args.evaluation else None
    console = Console(quiet=args.json)
    result = _measured(bundle, args, chosen, console)
    if args.json:
        print_json(result.as_json())
    else:
        tables.print_result(console, result)
    if args.html:
        write(args.html, bundle, result, evaluation, args.force)
        console.print(f"Page: {args.html}", highlight=False, markup=False)
    return 1 if result.failed else 0


def _measured(bundle: Bundle, args: argparse.Namespace, chosen: dict[str, Device], console: Any) -> Result:
    from benchmarks import measure, tables
    from benchmarks.ceiling import measure_ceiling
    from benchmarks.cost import artifact_cost, step_cost
    from benchmarks.result import REFERENCE_TOKENS, Result

    ids = _list(args.artifact) if args.artifact else measure.measurable(bundle)
    artifacts = {artifact_id: bundle.choose(artifact_id)[1] for artifact_id in ids}
    most = measure.longest_of(bundle, ids)
    lengths = measure.usable_lengths(_numbers(args.lengths), most)
    tokens = min(REFERENCE_TOKENS, most)
    threads, rounds = _positive(args.threads, "--threads"), _positive(args.rounds, "--rounds")
    for artifact in artifacts.values():
        # Costs are read from the files, which nothing may open before their hashes are right.
        bundle.check_artifact(artifact)
    costs = {artifact_id: artifact_cost(bundle, artifact_id, tokens) for artifact_id in ids}
    steps = {i: step_cost(bundle, i, tokens) for i in ids if artifacts[i].cache}
    ceiling = measure_ceiling(threads)
    tables.print_ceiling(console, ceiling, costs, tokens, steps)
    with _progress(measure.observer(bundle, lengths, threads), len(ids) * rounds) as observe:
        measurements = measure.measure(artifacts, observe, rounds)
    return Result(
        bundle=bundle.folder.name,
        host=measure.host(),
        threads=threads,
        rounds=rounds,
        lengths=lengths,
        tokens=tokens,
        ceiling=ceiling,
        sizes={artifact_id: artifact.size for artifact_id, artifact in artifacts.items()},
        costs=costs,
        measurements=measurements,
        predictions=_predictions(chosen, costs) + _predictions(chosen, steps),
        step_costs=steps,
    )


@contextmanager
def _progress(observe: Observe, total: int) -> Iterator[Observe]:
    """The same, with a bar on stderr. An artifact that refuses is not asked again: the bar may end early."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("measuring", total=total)

        def watched(artifact_id: str) -> dict[str, Any]:
            progress.update(bar, description=f"measuring {artifact_id}")
            document = observe(artifact_id)
            progress.advance(bar)
            return document

        yield watched


def _predictions(chosen: dict[str, Device], costs: dict[str, Cost]) -> tuple[Prediction, ...]:
    from benchmarks.predict import predict, runs_on

    return tuple(
        predict(name, device, artifact_id, cost)
        for name, device in chosen.items()
        for artifact_id, cost in costs.items()
        if runs_on(device, artifact_id.split("/")[0])
    )


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> list[int]:
    from mobile_llm.errors import InvalidInput

    try:
        return [int(part) for part in _list(text)]
    except ValueError:
        raise InvalidInput(f"--lengths should be numbers such as 16,64,128, not {text!r}") from None


def _positive(value: int, option: str) -> int:
    from mobile_llm.errors import InvalidInput

    if value < 1:
        raise InvalidInput(f"{option} should be at least 1, not {value}")
    return value
