"""`mobile-llm run`: texts in, the answers of the bundle's task out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "answer texts with a bundle: labels, numbers, entities, embeddings, or what a model writes"
EXTRA = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; without any, one per line of stdin")
    parser.add_argument(
        "--text-pair", action="append", default=[], metavar="TEXT", help="the second text of a pair, once for each TEXT"
    )
    parser.add_argument("--artifact", metavar="ID", help="such as onnx/int8 (default: the bundle's)")
    parser.add_argument("--backend", metavar="NAME", help="another runtime, such as coreml-evaluator")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of what a model writes")
    parser.add_argument("--schema", metavar="FILE", help="a JSON schema that what a model writes meets")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of a prompt and what the model writes")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")


def run(args: argparse.Namespace) -> int:
    import mobile_llm
    from mobile_llm.commands import print_json

    task = mobile_llm.load(args.bundle, args.artifact, args.threads, args.backend, args.context)
    _ = task.engine.manifest.text_policy  # refuses a bundle that takes tensors before texts are read
    texts, settings = _texts(args), _settings(task, args)
    if hasattr(task, "stream") and sys.stdout.isatty() and not args.json:
        _show_writing(task, texts, settings)
        return 0
    answers = [_shown(text) | answer for text, answer in zip(texts, _answers(task, texts, settings))]
    if args.json:
        print_json({"artifact": task.engine.artifact_id, "answers": answers})
    else:
        for answer in answers:
            sys.stdout.write(_line(answer) + "\n")
    return 0


def _texts(args: argparse.Namespace) -> list[Any]:
    """Texts, or pairs. Raises InvalidInput where there is not a second text for each first one."""
    from mobile_llm.errors import InvalidInput

    if args.text_pair and len(args.text_pair) != len(args.texts):
        raise InvalidInput(
            f"--text-pair is given {len(args.text_pair)} times for {len(args.texts)} texts; give each TEXT of the "
            "command line its second text"
        )
    if args.text_pair:
        return list(zip(args.texts, args.text_pair))
    return args.texts or [line.rstrip("\n") for line in sys.stdin]


def _settings(task: Any, args: argparse.Namespace) -> dict[str, Any]:
    """How a model is to write. Raises InvalidInput for a file that holds no JSON."""
    from pathlib import Path

    from mobile_llm.bundle.codec import read_json
    from mobile_llm.errors import InvalidInput

    settings = {"max_tokens": args.max_tokens}
    if not args.schema:
        return settings
    if not hasattr(task, "generate"):
        raise InvalidInput(f"--schema is for a model that writes, and {args.bundle} holds none; leave it out")
    return settings | {"schema": read_json(Path(args.schema))}


def _shown(text: Any) -> dict[str, Any]:
    return {"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else {"text": text}


def _answers(task: Any, texts: list[Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    if hasattr(task, "generate"):
        return [_written(task, text, settings) for text in texts]
    if hasattr(task, "classify"):
        return [vars(answer) for answer in task.classify(texts)]
    if hasattr(task, "label_tokens"):
        return [{"entities": [vars(e) for e in found]} for found in task.label_tokens(texts)]
    return [{"embedding": row.tolist()} for row in task.embed(texts)]


def _written(task: Any, text: Any, settings: dict[str, Any]) -> dict[str, Any]:
    answer = task.generate(_prompt(task, text), **settings)
    return {"answer": answer.text, "finish": answer.finish, **vars(answer.stats)}


def _show_writing(task: Any, texts: list[Any], settings: dict[str, Any]) -> None:
    """As it is written, for a person who waits."""
    from mobile_llm.terminal.lines import show

    for text in texts:
        for piece in task.stream(_prompt(task, text), **settings):
            show(piece)
        show("\n")


def _prompt(task: Any, text: Any) -> Any:
    """One turn of a conversation where the model has a template, else a text to go on from."""
    from mobile_llm.errors import InvalidInput

    if not isinstance(text, str):
        raise InvalidInput("a model that writes takes one text, not a pair; leave out --text-pair")
    return [{"role": "user", "content": text}] if task.chats else text


def _line(answer: dict[str, Any]) -> str:
    if "answer" in answer:
        return str(answer["answer"])
    return "\t".join([_answer(answer), answer["text"], *([answer["text_pair"]] if "text_pair" in answer else [])])


def _answer(answer: dict[str, Any]) -> str:
    if "label" in answer:
        return f"{answer['label']}\t{answer['score']:.3f}"
    if "labels" in answer:
        return ", ".join(f"{label} {answer['scores'][label]:.3f}" for label in answer["labels"]) or "no label"
    if "value" in answer:
        return f"{answer['value']:.4f}"
    if "entities" in answer:
        found = (f"{e['label']} {e['text']!r} ({e['start']}:{e['end']}, {e['score']:.3f})" for e in answer["entities"])
        return ", ".join(found) or "no entity"
    vector = answer["embedding"]
    shown = " ".join(f"{value:+.4f}" for value in vector[:6])
    return f"[{shown} … {len(vector)} numbers]"
