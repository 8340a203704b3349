"""optimum-onnx on a model that writes. Runs in an environment of its own, on standard input and output as the package
describes. Nothing of this project is imported here."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from answering import Reading, Request, answer
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer


def main() -> None:
    answer(f"optimum-onnx {version('optimum-onnx')}, transformers {version('transformers')}", read)


def read(request: Request, artifact: str) -> list[Reading]:
    bundle, path = request["bundle"], Path(artifact)
    tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True)
    where = {"subfolder": str(path.parent), "file_name": path.name, "local_files_only": True}
    model = ORTModelForCausalLM.from_pretrained(bundle, provider="CPUExecutionProvider", **where)
    prompts = [encode(tokenizer, prompt) for prompt in request["prompts"]]
    written = [write(model, ids, request["count"]) for ids in prompts]
    return [{"artifact": artifact, "way": "generate", "prompts": prompts, "written": written}]


def encode(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    if "text" in prompt:
        return list(tokenizer(prompt["text"])["input_ids"])
    text = tokenizer.apply_chat_template(prompt["messages"], add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def write(model: Any, ids: list[int], count: int) -> list[int]:
    given = torch.tensor([ids])
    ids_out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False)
    tokens: list[int] = ids_out[0, len(ids) :].tolist()
    return tokens


if __name__ == "__main__":
    main()
