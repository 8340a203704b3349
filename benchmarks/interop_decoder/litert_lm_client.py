"""LiteRT-LM. Runs in an environment of its own: a request as JSON on standard input, what it gave on standard output.

Nothing of this project is imported here.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import litert_lm

GREEDY = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)


def main() -> None:
    request = json.load(sys.stdin)
    litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
    backend = litert_lm.Backend.CPU(thread_count=request["threads"])
    with litert_lm.Engine(request["file"], backend=backend, cache_dir=":nocache") as engine:
        answer = {
            "client": f"litert-lm {version('litert-lm')}",
            "ids": [engine.tokenize(text) for text in request["texts"]],
            "stop": engine.eos_token_ids,
            "answers": [talk(engine, request, messages) for messages in request["conversations"]],
        }
    print(json.dumps(answer))


def talk(engine: Any, request: dict[str, Any], messages: list[dict[str, str]]) -> dict[str, Any]:
    """What it makes of a conversation, then of one thing more, said to it as a list of parts."""
    *before, last = messages
    more = {"role": "user", "content": [{"type": "text", "text": request["more"]}]}
    with engine.create_conversation(
        messages=before, sampler_config=GREEDY, max_output_tokens=request["most"]
    ) as conversation:
        prompt = conversation.render_message_to_string(last)
        first = str(conversation.send_message(last))
        return {"prompt": prompt, "texts": [first, str(conversation.send_message(more))]}


if __name__ == "__main__":
    main()
