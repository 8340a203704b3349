"""`--help` of the program and of every command: at once, without the heavy packages."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mobile_llm.commands import build_parser, command_modules

HEAVY = ("torch", "transformers", "onnx", "coremltools", "tensorflow", "rich", "numpy", "optimum", "peft")
_CODE = f"""
import sys
from mobile_llm.commands import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(' '.join(sorted({set(HEAVY)} & set(sys.modules))))
"""


@pytest.mark.parametrize("command", ["", *command_modules()])
def test_help_is_light_and_quick(command: str) -> None:
    seconds = []
    for _ in range(3):  # the best of three: another process may be busy
        start = time.perf_counter()
        arguments = [sys.executable, "-c", _CODE, *filter(None, [command]), "--help"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert (done.stdout.startswith(f"usage: mobile-llm {command}".rstrip()), done.stderr) == (True, "")
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1


@pytest.mark.parametrize("arguments", [["--artifact", "x", "a", "b"], ["a", "b", "--artifact", "x"]])
def test_texts_may_stand_on_either_side_of_options(arguments: list[str]) -> None:
    args = build_parser(command_modules())[0].parse_args(["run", "bundle", *arguments])
    assert (args.bundle, args.texts, args.artifact) == ("bundle", ["a", "b"], "x")
