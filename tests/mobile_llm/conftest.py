"""A bundle whose model is a table of answers: what sessions do, in milliseconds. Its tokenizer is a byte-level BPE."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import mobile_llm
from mobile_llm.backends.rows import check_rows
from mobile_llm.bundle.codec import to_json
from mobile_llm.bundle.integrity import describe_file
from mobile_llm.bundle.manifest import (
    SCHEMA_VERSION,
    Artifact,
    EntryPoint,
    Generation,
    KvCache,
    Manifest,
    Origin,
    TaskInfo,
    TensorBinding,
)
from mobile_llm.bundle.manifest import Tokenizer as Policy
from mobile_llm.tasks.text_generation import ChatModel

ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
EOS = "<eos>"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}<|assistant|>"
)
EMOJI_AND_CJK = (
    "你好，世界！👋🏽 今日はいい天気ですね。안녕하세요 🌍 naïve café — 👩‍👩‍👧‍👦 “quoted” "
    "𝒳𝓎 ﷽ 🇫🇷🇯🇵 ok. 再见 再见 🎉🎉 done"
)


class TableDecoder:
    """A `Decoder` that answers the last message of the user from a table, by default with the message itself. Its cache
    holds the ids, so that a wrong one would give another answer."""

    def __init__(self, tokenizer: Tokenizer, context: int) -> None:
        self.context = context
        self.answers: dict[str, list[int]] = {}
        self.taken: list[int] = []  # how many tokens each call read
        self.closed = 0
        self.before_append: Callable[[], object] = lambda: None
        self._tokenizer = tokenizer
        self._rows = np.zeros((1, 1, 0, 1), np.float32)
        self._inside = threading.Lock()

    @property
    def position(self) -> int:
        return int(self._rows.shape[2])

    def append(self, ids: Sequence[int]) -> np.ndarray:
        assert self._inside.acquire(blocking=False), "two threads are inside"
        try:
            assert not self.closed
            self.before_append()
            self.taken.append(len(ids))
            new = np.asarray(ids, np.float32).reshape(1, 1, -1, 1)
            self._rows = np.concatenate([self._rows, new], axis=2)
            assert self.position <= self.context
            return self._logits([int(i) for i in self._rows.ravel()])
        finally:
            self._inside.release()

    def rewind(self, position: int) -> None:
        self._rows = self._rows[:, :, :position]

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        return {"key.0": self._rows[:, :, :position].copy()}

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        check_rows(rows, {"key.0": (1, 1, position, 1)})
        self._rows = rows["key.0"]

    def close(self) -> None:
        self.closed += 1

    def _logits(self, ids: list[int]) -> np.ndarray:
        user, assistant, end = (self._tokenizer.token_to_id(token) for token in (*ROLES[1:], EOS))
        logits = np.zeros(self._tokenizer.get_vocab_size(), np.float32)
        if assistant not in ids:
            return logits
        place = len(ids) - 1 - ids[::-1].index(assistant)
        asked = ids[len(ids[:place]) - ids[:place][::-1].index(user) : place - 1] if user in ids[:place] else []
        written = ids[place + 1 :]
        answer = [*self.answers.get(self._tokenizer.decode(asked), asked), end]
        logits[answer[min(len(written), len(answer) - 1)]] = 10
        return logits


class Chat:
    """A loaded model, its decoder and its tokenizer."""

    def __init__(self, bundle: Path, model: ChatModel, decoder: TableDecoder) -> None:
        self.bundle = bundle
        self.model = model
        self.decoder = decoder
        self.tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def bytes(self, text: str) -> list[int]:
        """One token for each byte: as no tokenizer would cut a text."""
        alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]
        return [self.tokenizer.token_to_id(letter) for letter in alphabet]

    @property
    def read(self) -> int:
        return sum(self.decoder.taken)


def byte_level() -> Tokenizer:
    """With merges inside and across the characters of emoji and CJK text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[*ROLES, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([EMOJI_AND_CJK, "the quick brown fox and the lazy dog"], trainer)
    return tokenizer


@pytest.fixture(scope="session")
def table_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "model.onnx").write_bytes(b"a table")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, template: bool = True) -> None:
    entry = EntryPoint(
        {"input_ids": TensorBinding("input_ids", "int64", (1, "sequence"), {"sequence": (1, 64)})},
        {"logits": TensorBinding("logits", "float32", (1, 1, 330))},
    )
    files = (describe_file(folder, folder / "model.onnx"),)
    cache = KvCache("grown", 1, 1, 1, "float32", 1024)
    artifact = Artifact("onnx", "fp32", "model.onnx", files, {"decode": (entry,)}, cache=cache)
    stop = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(EOS)
    own = ["tokenizer.json", *(["chat_template.jinja"] if template else [])]
    manifest = Manifest(
        SCHEMA_VERSION,
        "a test",
        Origin("table", "none", "0"),
        TaskInfo("text-generation", generation=Generation((stop,), {"eos_token": EOS})),
        {"onnx/fp32": artifact},
        {"onnx": "onnx/fp32"},
        tuple(describe_file(folder, folder / name) for name in own),
        Policy(1024, truncation="none"),
    )
    (folder / "manifest.json").write_text(json.dumps(to_json(manifest)), encoding="utf-8")


@pytest.fixture
def chat(table_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """The bundle opened with a context of 1,024 tokens."""
    return open_chat(table_bundle, monkeypatch)


def open_chat(bundle: Path, monkeypatch: pytest.MonkeyPatch, context: int = 1024) -> Chat:
    decoder = TableDecoder(Tokenizer.from_file(str(bundle / "tokenizer.json")), context)

    def opened(*given: object) -> TableDecoder:
        decoder.closed = 0
        decoder.rewind(0)
        return decoder

    backend = SimpleNamespace(open_decoder=opened)
    monkeypatch.setattr("mobile_llm.generation.engine.find_backend", lambda *given: backend)
    model: Any = mobile_llm.load(bundle)
    return Chat(bundle, model, decoder)
