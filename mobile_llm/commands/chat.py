"""`mobile-llm chat`: a conversation in the terminal, or lines from stdin and answers on stdout."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "talk with a model: in the terminal, or one message per line of stdin"
EXTRA = ""
_SAMPLING = {
    "temperature": (float, "0 takes the likeliest token, always"),
    "top_k": (int, "of so many likeliest tokens"),
    "top_p": (float, "of the likeliest tokens that have this share together"),
    "min_p": (float, "of tokens at least this share as likely as the likeliest"),
    "repetition_penalty": (float, "above 1: against what was there before"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--system", metavar="TEXT", help="the message of the system, which comes first")
    parser.add_argument("--artifact", metavar="ID", help="such as onnx/int8 (default: the bundle's)")
    parser.add_argument("--backend", metavar="NAME", help="another runtime, such as coreml-evaluator")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of the conversation (default: the model's)")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of one answer (512)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends an answer; once for each")
    parser.add_argument("--when-full", default="drop_oldest", metavar="POLICY", help="drop_oldest (default), or error")
    parser.add_argument("--seed", type=int, metavar="N", help="of random numbers (default: another each time)")
    for name, (kind, text) in _SAMPLING.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, metavar="X", help=f"{text} (default: the model's own)")


def run(args: argparse.Namespace) -> int:
    import secrets

    import mobile_llm
    from mobile_llm.commands import print_json
    from mobile_llm.terminal.lines import converse, converse_by_lines, show
    from mobile_llm.terminal.talk import Talk

    seed = secrets.randbits(32) if args.seed is None else args.seed
    model = mobile_llm.load(args.bundle, args.artifact, args.threads, args.backend, args.context)
    _refuse_other_tasks(model)
    with model:
        talk = Talk(model, args.system, _sampler(model, args), seed, args.when_full, args.max_tokens, tuple(args.stop))
        if sys.stdin.isatty() and not args.json:
            converse(talk)
        else:
            converse_by_lines(talk, _nothing if args.json else show)
        if args.json:
            print_json(talk.document())
    return 0


def _nothing(text: str) -> None:
    pass


def _refuse_other_tasks(model: Any) -> None:
    from mobile_llm.errors import WrongTask

    if not hasattr(model, "session"):
        task = model.engine.manifest.task.name
        raise WrongTask(f"this bundle does {task}, and only text-generation chats; use `mobile-llm run`")


def _sampler(model: Any, args: argparse.Namespace) -> Any:
    """The model's own, but for what is asked for."""
    from dataclasses import replace

    return replace(model.sampler, **{name: vars(args)[name] for name in _SAMPLING if vars(args)[name] is not None})
