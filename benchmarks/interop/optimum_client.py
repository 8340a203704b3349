"""optimum-onnx. Runs in an environment of its own, on standard input and output as the package describes.

Nothing of this project is imported here.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from answering import Reading, Request, answer
from optimum.onnxruntime import (
    ORTModelForCustomTasks,
    ORTModelForFeatureExtraction,
    ORTModelForSequenceClassification,
)
from transformers import AutoTokenizer, pipeline


def main() -> None:
    answer(f"optimum-onnx {version('optimum-onnx')}, transformers {version('transformers')}", read)


def read(request: Request, artifact: str) -> list[Reading]:
    return (classify if request["task"] == "text-classification" else embed)(request, artifact)


def classify(request: dict[str, Any], artifact: str) -> list[Reading]:
    model, tokenizer = load(ORTModelForSequenceClassification, request, artifact)
    ids, logits = [], []
    for encoded in encode(tokenizer, request["texts"]):
        ids.append(encoded["input_ids"][0].tolist())
        logits.append(model(**encoded).logits[0])
    labels = [model.config.id2label[int(row.argmax())] for row in logits]
    values = [row.tolist() for row in logits]
    return [
        {"artifact": artifact, "way": "model", "kind": "logits", "values": values, "labels": labels, "ids": ids},
        {"artifact": artifact, "ids": ids, **classify_with_pipeline(model, tokenizer, request)},
    ]


def classify_with_pipeline(model: Any, tokenizer: Any, request: dict[str, Any]) -> Reading:
    ask = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = request["texts"]
    answers: Any = ask(texts, top_k=None, batch_size=len(texts), truncation=True)
    by_label = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    values = [[scores.get(label) for label in request["labels"]] for scores in by_label]
    labels = [answer[0]["label"] for answer in answers]
    return {"way": "pipeline, one batch", "kind": "scores", "values": values, "labels": labels}


def embed(request: dict[str, Any], artifact: str) -> list[Reading]:
    model, tokenizer = load(ORTModelForFeatureExtraction, request, artifact)
    whole, _ = load(ORTModelForCustomTasks, request, artifact)
    ids, sentences, pooled = [], [], []
    for encoded in encode(tokenizer, request["texts"]):
        ids.append(encoded["input_ids"][0].tolist())
        sentences.append(whole(**encoded)["sentence_embedding"][0].tolist())
        hidden = model(**encoded).last_hidden_state[0]
        pooled.append((hidden[0] if request["pooling"] == "cls" else hidden.mean(dim=0)).tolist())
    common = {"artifact": artifact, "kind": "embedding", "ids": ids}
    return [
        {**common, "way": "sentence_embedding", "values": sentences},
        {**common, "way": "pooled last_hidden_state", "values": pooled},
    ]


def load(kind: Any, request: dict[str, Any], artifact: str) -> tuple[Any, Any]:
    bundle, path = request["bundle"], Path(artifact)
    where = {"subfolder": str(path.parent), "file_name": path.name, "local_files_only": True}
    model = kind.from_pretrained(bundle, provider="CPUExecutionProvider", **where)
    return model, AutoTokenizer.from_pretrained(bundle, local_files_only=True)


def encode(tokenizer: Any, texts: list[str]) -> list[dict[str, torch.Tensor]]:
    return [tokenizer(text, truncation=True, return_tensors="pt") for text in texts]


if __name__ == "__main__":
    main()
