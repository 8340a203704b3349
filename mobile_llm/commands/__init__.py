"""`mobile-llm COMMAND`: one module per command, found through the entry-point group `mobile_llm.commands`.

A command module has `HELP` (one line), `EXTRA` (the pip extra it needs, "" for none), `add_arguments(parser)`
and `run(args) -> exit code`; heavy imports stand inside `run`. Every command takes `--json`, with which stdout
is exactly one JSON document. Exit codes: 0, 1 a check failed, 2 usage or input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from mobile_llm import __version__, registry
from mobile_llm.errors import Cancelled, MobileLlmError, NotEnoughMemory

_GROUP = "mobile_llm.commands"
# The order in which a user meets them; what others register comes after.
_ORDER = ["finetune", "export", "inspect", "run", "chat", "serve", "evaluate", "verify", "benchmark", "doctor"]

log = logging.getLogger("mobile_llm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Every error is one sentence on stderr, never a traceback."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    modules = command_modules()
    args = build_parser(modules)[0].parse_args(argv)
    try:
        return modules[args.command].run(args)
    except BaseException as error:
        return _report(error, modules[args.command], args.json)


class _Command(argparse.ArgumentParser):
    """Takes positionals on both sides of options: `run BUNDLE --artifact ID TEXT`."""

    _intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._intermixed:  # called by the parsing of either kind
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False


def command_modules() -> dict[str, ModuleType]:
    """Every installed command, in the order in which a user meets them. One that cannot be imported is named, and does
    not stop the others."""
    found = {}
    for name in _names():
        try:
            found[name] = registry.find(_GROUP, name)
        except ImportError as error:
            log.warning("the command %s cannot be loaded: %s", name, error)
    return found


def build_parser(
    modules: dict[str, ModuleType],
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the program, and those of its commands."""
    parser = argparse.ArgumentParser(
        prog="mobile-llm",
        description="Export a model to verified ONNX, TFLite and Core ML artifacts, run them, measure them.",
    )
    parser.add_argument("--version", action="version", version=f"mobile-llm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Command)
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
    return parser, commands.choices


def print_json(document: object) -> None:
    """The one JSON document of a command."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _names() -> list[str]:
    found = registry.names(_GROUP)
    return [n for n in _ORDER if n in found] + [n for n in found if n not in _ORDER]


def _report(error: BaseException, module: ModuleType, as_json: bool) -> int:
    if os.environ.get("MOBILE_LLM_TRACEBACK") and not isinstance(error, SystemExit):
        raise error
    if isinstance(error, (SystemExit, GeneratorExit)):
        raise error
    known = _translate(error, module)
    print(f"mobile-llm: {known}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
    if as_json:
        print_json({"error": {"type": type(known).__name__, "message": str(known)}})
    return known.exit_code


def _translate(error: BaseException, module: ModuleType) -> MobileLlmError:
    """Any exception as one of ours."""
    if isinstance(error, MobileLlmError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("cancelled; nothing half-written was left behind")
    if isinstance(error, ModuleNotFoundError) and module.EXTRA:
        return MobileLlmError(
            f'this command needs the package {error.name!r}: pip install "mobile-llm[{module.EXTRA}]"'
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughMemory(f"the disk is full ({error.filename or 'while writing'}); free some room and repeat")
    if isinstance(error, OSError) and error.filename:
        return MobileLlmError(f"{error.filename}: {error.strerror}")
    if isinstance(error, MemoryError):
        return NotEnoughMemory("memory is exhausted; close other programs or take a smaller model")
    return MobileLlmError(
        f"unexpected {type(error).__name__}: {error}; please report it with what MOBILE_LLM_TRACEBACK=1 shows"
    )
