"""`mobile-llm doctor`: which versions work together here, and what is missing for what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

HELP = "say what is installed, what is missing for what, and what this machine is good for"
EXTRA = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It asks nothing."""


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mobile_llm import doctor
    from mobile_llm.commands import print_json

    found, here = doctor.abilities(), doctor.machine(Path.cwd())
    wrong = doctor.broken(found, here)
    if args.json:
        print_json(_document(found, here, wrong))
    else:
        sys.stdout.write("\n".join([*_machine(here), "", *_abilities(found), "", *_verdict(wrong)]) + "\n")
    return 1 if wrong else 0


def _document(found: list[Any], here: Any, wrong: list[str]) -> dict[str, Any]:
    from dataclasses import asdict

    abilities = {
        ability.name: {
            "ready": ability.ready,
            "command": ability.command or None,
            "reason": ability.reason or None,
            "packages": [asdict(package) | {"state": package.state} for package in ability.packages],
        }
        for ability in found
    }
    return {"machine": asdict(here), "abilities": abilities, "broken": wrong}


def _machine(here: Any) -> Iterator[str]:
    yield f"Python {here.python} on {here.system}: {here.cpu}"
    yield f"instructions that matter: {', '.join(here.features) or 'unknown'}"
    yield from here.notes
    memory = "unknown" if here.memory_available is None else f"{here.memory_available / 1e9:.1f} GB"
    yield f"free memory {memory}, free disk {here.disk_free / 1e9:.1f} GB"


def _abilities(found: list[Any]) -> Iterator[str]:
    shown: set[str] = set()
    for ability in found:
        yield f"{'ready  ' if ability.ready else 'MISSING'}  {ability.name}"
        for package in ability.packages:
            if package.name not in shown:
                shown.add(package.name)
                yield f"           {_line(package)}"
        if not ability.ready:
            yield f"           -> {ability.command or ability.reason}"


def _line(package: Any) -> str:
    tested = f", tested {package.tested}" if package.tested and package.state != "tested" else ""
    return f"{package.name} {package.installed or '-'}  {package.state} (wants {package.wanted or 'any'}{tested})"


def _verdict(wrong: list[str]) -> list[str]:
    return wrong or ["Nothing that is installed is known not to work together."]
