"""`mobile-llm run`: texts in, the answers of the bundle's task out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "answer texts with a bundle: labels, entities, embeddings, or what a model writes"
EXTRA = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; without any, one per line of stdin")
    parser.add_argument("--artifact", metavar="ID", help="such as onnx/int8 (default: the bundle's)")
    parser.add_argument("--backend", metavar="NAME", help="another runtime, such as coreml-evaluator")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of what a model writes")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")


def run(args: argparse.Namespace) -> int:
    import mobile_llm
    from mobile_llm.commands import print_json

    task = mobile_llm.load(args.bundle, args.artifact, args.threads, args.backend)
    _ = task.engine.manifest.text_policy  # refuses a bundle that takes tensors before texts are read
    texts = args.texts or [line.rstrip("\n") for line in sys.stdin]
    answers = _answers(task, texts, args.max_tokens)
    if args.json:
        print_json({"artifact": task.engine.artifact_id, "answers": answers})
    else:
        for answer in answers:
            sys.stdout.write(_line(answer) + "\n")
    return 0


def _answers(task: Any, texts: list[str], max_tokens: int) -> list[dict[str, Any]]:
    if hasattr(task, "generate"):
        return [_written(task, text, max_tokens) for text in texts]
    if hasattr(task, "classify"):
        results = task.classify(texts)
        return [{"text": t, "label": r.label, "score": r.score, "scores": r.scores} for t, r in zip(texts, results)]
    if hasattr(task, "label_tokens"):
        return [{"text": t, "entities": [vars(e) for e in found]} for t, found in zip(texts, task.label_tokens(texts))]
    return [{"text": t, "embedding": row.tolist()} for t, row in zip(texts, task.embed(texts))]


def _written(task: Any, text: str, max_tokens: int) -> dict[str, Any]:
    """The answer to one turn of a conversation where the model has a template, else what follows the text."""
    prompt = [{"role": "user", "content": text}] if task.chats else text
    answer = task.generate(prompt, max_tokens)
    counts = {"prompt_tokens": answer.prompt_tokens, "tokens": len(answer.tokens)}
    return {"text": text, "answer": answer.text, "finish": answer.finish, **counts}


def _line(answer: dict[str, Any]) -> str:
    if "answer" in answer:
        return str(answer["answer"])
    if "label" in answer:
        return f"{answer['label']}\t{answer['score']:.3f}\t{answer['text']}"
    if "entities" in answer:
        found = (f"{e['label']} {e['text']!r} ({e['start']}:{e['end']}, {e['score']:.3f})" for e in answer["entities"])
        return f"{', '.join(found) or 'no entity'}\t{answer['text']}"
    vector = answer["embedding"]
    shown = " ".join(f"{value:+.4f}" for value in vector[:6])
    return f"[{shown} … {len(vector)} numbers]\t{answer['text']}"
