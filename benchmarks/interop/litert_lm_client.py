"""LiteRT-LM. Runs in an environment of its own, on standard input and output as the package describes.

It gives texts and no ids, and takes its tokenizer and its template from the .litertlm file. Nothing of this project is
imported here.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import litert_lm

GREEDY = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)


def main() -> None:
    request = json.load(sys.stdin)
    readings: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    for artifact in request["artifacts"]:
        try:
            readings.append(read(request, artifact))
        except Exception as error:  # whatever goes wrong in the client is its answer
            errors[artifact] = f"{type(error).__name__}: {error}"
    print(json.dumps({"client": f"litert-lm {version('litert-lm')}", "readings": readings, "errors": errors}))


def read(request: dict[str, Any], artifact: str) -> dict[str, Any]:
    backend = litert_lm.Backend.CPU(thread_count=2)
    path = str(Path(request["bundle"]) / artifact)
    # Without this it would leave a cache of packed weights beside the file.
    with litert_lm.Engine(path, backend=backend, cache_dir=":nocache") as engine:
        texts = [write(engine, prompt, request["count"]) for prompt in request["prompts"]]
    return {"artifact": artifact, "way": "conversation, session", "texts": texts}


def write(engine: Any, prompt: dict[str, Any], count: int) -> str:
    if "messages" in prompt:
        *before, last = prompt["messages"]
        with engine.create_conversation(
            messages=before, sampler_config=GREEDY, max_output_tokens=count
        ) as conversation:
            return str(conversation.send_message(last))
    with engine.create_session(apply_prompt_template=False, sampler_config=GREEDY, max_output_tokens=count) as session:
        session.run_prefill([prompt["text"]])
        return str(session.run_decode().texts[0])


if __name__ == "__main__":
    main()
