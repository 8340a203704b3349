"""`mobile-llm inspect`: what a bundle holds and what its export attested."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "show what a bundle holds, and check its files"
EXTRA = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")


def run(args: argparse.Namespace) -> int:
    from mobile_llm.bundle import Bundle
    from mobile_llm.bundle.codec import to_json
    from mobile_llm.commands import print_json

    bundle = Bundle.open(args.bundle)
    for artifact in bundle.manifest.artifacts.values():
        bundle.check_artifact(artifact)
    attested = _attested(bundle)
    if args.json:
        print_json({"manifest": to_json(bundle.manifest), "verification": attested})
    else:
        sys.stdout.write("\n".join(_lines(bundle, attested)) + "\n")
    return 0


def _attested(bundle: Any) -> dict[str, Any]:
    """verification.json: the one file that holds times, and so has no hash. Raises IntegrityFailed without its rows."""
    from mobile_llm.bundle.codec import read_json
    from mobile_llm.errors import IntegrityFailed, InvalidInput

    try:
        attested = read_json(bundle.path("verification.json"))
    except InvalidInput as error:
        raise IntegrityFailed(f"{error}; fetch the bundle again") from None
    rows = attested.get("rows") if isinstance(attested, dict) else None
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise IntegrityFailed("verification.json has no rows of what was compared; fetch the bundle again")
    return attested


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and {"artifact", "status"} <= set(row)


def _lines(bundle: Any, attested: dict[str, Any]) -> list[str]:
    manifest = bundle.manifest
    origin, task = manifest.origin, manifest.task
    lines = [
        f"{bundle.folder.name}: {task.name}",
        f"from {origin.id}: {origin.architecture}, {origin.parameters:,} parameters",
        f"licence: {origin.licence or 'not stated'}; of the data: {origin.data_licence or 'not stated'}",
    ]
    if task.problem_type:
        lines.append(f"answer: {task.problem_type}{', of pairs of texts' if task.text_pairs else ''}")
    if task.labels:
        lines.append(f"labels: {', '.join(task.labels)}")
    if task.pooling:
        lines.append(f"pooling: {task.pooling}{', normalized' if task.normalize else ''}")
    lines += [*_taken(manifest), ""]
    for artifact_id, artifact in manifest.artifacts.items():
        lines.append(f"{artifact_id:<14}{artifact.size / 1e6:>8.1f} MB  {_verdict(artifact_id, attested)}")
    lines += ["", "Every file has the size and sha256 that the manifest states."]
    return lines


def _taken(manifest: Any) -> list[str]:
    """What goes in: prompts, texts, or tensors by name."""
    context = {artifact.cache.context for artifact in manifest.artifacts.values() if artifact.cache}
    if context:
        return [f"context: {min(context)} tokens, for a prompt and its answer"]
    if manifest.tokenizer:
        return [f"texts up to {manifest.tokenizer.max_length} tokens"]
    (entry, *_) = next(iter(next(iter(manifest.artifacts.values())).entry_points.values()))
    sides = (("takes", entry.inputs), ("gives", entry.outputs))
    return [f"{verb} {name}: {b.dtype} {list(b.shape)}" for verb, side in sides for name, b in side.items()]


def _verdict(artifact_id: str, attested: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for row in attested["rows"]:
        if row["artifact"] == artifact_id:
            counts[row["status"]] = counts.get(row["status"], 0) + 1
    shown = {"passed": "passed", "failed": "FAILED", "not_checked": "NOT CHECKED"}
    return ", ".join(f"{counts[s]} {word}" for s, word in shown.items() if s in counts) or "NOT CHECKED"
