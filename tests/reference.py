"""The command-line reference of the README, made from the commands themselves.

python -m tests.reference README.md     writes it between its markers
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mobile_llm.commands import build_parser, command_modules

START, END = "<!-- commands: made by `make reference` -->", "<!-- end of commands -->"


def reference() -> str:
    """`--help` of the program and of each command, as Markdown."""
    os.environ["COLUMNS"] = "100"
    parser, commands = build_parser(command_modules())
    parts = ["```text", parser.format_help().strip(), "```"]
    for name, command in commands.items():
        parts += ["", f"### `mobile-llm {name}`", "", "```text", command.format_help().strip(), "```"]
    return "\n".join(parts)


def inserted(text: str) -> str:
    """`text` with the reference between its markers."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(inserted(path.read_text(encoding="utf-8")), encoding="utf-8")
