"""onnxruntime-genai. Runs in an environment of its own, on standard input and output as the package describes.

It opens the folder by its genai_config.json, so it reads the one artifact that is named there. Nothing of this project
is imported here.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime_genai as genai
from answering import Reading, Request, answer


def main() -> None:
    answer(f"onnxruntime-genai {version('onnxruntime-genai')}", read)


def read(request: Request, artifact: str) -> list[Reading]:
    model = genai.Model(request["bundle"])
    tokenizer = genai.Tokenizer(model)
    prompts = [encode(tokenizer, prompt) for prompt in request["prompts"]]
    written = [write(model, ids, request["count"]) for ids in prompts]
    return [{"artifact": artifact, "way": "generator", "prompts": prompts, "written": written}]


def encode(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    text = prompt.get("text")
    if text is None:
        text = tokenizer.apply_chat_template(messages=json.dumps(prompt["messages"]), add_generation_prompt=True)
    return [int(token) for token in tokenizer.encode(text)]


def write(model: Any, ids: list[int], count: int) -> list[int]:
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + count, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([ids], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(ids) :]]


if __name__ == "__main__":
    main()
