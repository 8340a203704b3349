"""TensorFlow's own TFLite interpreter, on standard input and output as the package describes.

Nothing of this project is imported here; the tokenizer is read from the bundle by transformers.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
from answering import Reading, Request, answer
from transformers import AutoTokenizer


def main() -> None:
    warnings.simplefilter("ignore")  # the interpreter announces its own removal at every use
    answer(f"TensorFlow {tf.__version__}", read)


def read(request: Request, artifact: str) -> list[Reading]:
    bundle = Path(request["bundle"])
    classifies = request["task"] == "text-classification"
    output, kind = ("logits", "logits") if classifies else ("sentence_embedding", "embedding")
    tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True)
    encoded = [tokenizer(text, truncation=True) for text in request["texts"]]
    signatures = Signatures(bundle / artifact)
    values = [signatures.run(one, output) for one in encoded]
    reading = {"artifact": artifact, "way": "smallest signature", "kind": kind, "values": values}
    reading["ids"] = [one["input_ids"] for one in encoded]
    if classifies:
        names = json.loads((bundle / "config.json").read_text("utf-8"))["id2label"]
        reading["labels"] = [None if row is None else names[str(int(np.argmax(row)))] for row in values]
    return [reading]


class Signatures:
    """A TFLite file whose signatures differ in their number of tokens."""

    def __init__(self, path: Path) -> None:
        interpreter = tf.lite.Interpreter(str(path))
        runners = [interpreter.get_signature_runner(key) for key in interpreter.get_signature_list()]
        lengths = {int(r.get_input_details()["input_ids"]["shape"][-1]): r for r in runners}
        self._runners = dict(sorted(lengths.items()))

    def run(self, encoded: dict[str, list[int]], output: str) -> list[float] | None:
        """Padded with zeros to the smallest signature that holds the text; None where none does."""
        tokens = len(encoded["input_ids"])
        length = next((length for length in self._runners if length >= tokens), None)
        if length is None:
            return None
        runner = self._runners[length]
        feeds = {}
        for name, details in runner.get_input_details().items():
            feeds[name] = np.zeros(details["shape"], details["dtype"])
            feeds[name][0, :tokens] = encoded.get(name, 0)
        return [float(value) for value in runner(**feeds)[output][0]]


if __name__ == "__main__":
    main()
