"""LiteRT-LM. Runs in an environment of its own, on standard input and output as the package describes.

It gives texts and no ids, and takes its tokenizer and its template from the .litertlm file. Nothing of this project is
imported here.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import litert_lm
from answering import Reading, Request, answer

GREEDY = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)


def main() -> None:
    answer(f"litert-lm {version('litert-lm')}", read)


def read(request: Request, artifact: str) -> list[Reading]:
    backend = litert_lm.Backend.CPU(thread_count=2)
    path = str(Path(request["bundle"]) / artifact)
    # Without this it would leave a cache of packed weights beside the file.
    with litert_lm.Engine(path, backend=backend, cache_dir=":nocache") as engine:
        texts = [write(engine, prompt, request["count"]) for prompt in request["prompts"]]
    return [{"artifact": artifact, "way": "conversation, session", "texts": texts}]


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
