"""Texts that a model which writes is calibrated on: half is a user's file, half it writes itself.

Its own text is what it will see of itself, and needs no data; the user's says which subjects matter. Both are cut into
windows of equal length. Enough is some tokens for every number that the widest layer takes in.
Not covered: conversations in the model's chat template, texts in several files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.progress import Watch, silent
from exporters.quantization.hessians import inputs_of
from exporters.sources.huggingface import HuggingFaceSource
from mobile_llm.errors import InvalidInput

_LENGTH = 256  # tokens of a window
_MOST = 16_384  # tokens of each half
_PER_INPUT = 16  # tokens for every number that goes into the widest layer, where that is less
_LEAST_SHARE = 16  # a text may hold this many times less than what is enough
_SIDE_BY_SIDE = 32  # texts that the model writes at a time: their caches are in memory together
_SEED = 0


@dataclass(frozen=True, eq=False)
class Texts:
    """Windows of tokens, int64 (count, length): those that the model has written, and those of the user's text."""

    written: np.ndarray
    read: np.ndarray

    def together(self, most: int) -> np.ndarray:
        """At most so many tokens of both, as many of the one as of the other where there are."""
        count = max(1, most // self.written.shape[1] // 2)
        return np.concatenate([_spread(self.written, count), _spread(self.read, count)])


def calibration_texts(source: HuggingFaceSource, blocks: DecoderModel, text: str, watch: Watch = silent) -> Texts:
    """Parts of `text`, and what the source's model writes. Raises InvalidInput for a text that is too short."""
    length = min(_LENGTH, blocks.context)
    enough = min(_MOST, _PER_INPUT * max(group[0].shape[1] for group in inputs_of(blocks)))
    count = -(-enough // length)
    read = read_windows(source.tokenizer, text, count, length)
    return Texts(write_windows(source, count, length, watch), read)


def read_windows(tokenizer: Any, text: str, count: int, length: int) -> np.ndarray:
    """int64 (at most `count`, `length`), evenly from the whole text; each begins as the tokenizer begins a text."""
    start = _start(tokenizer)
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)
    own = length - len(start)
    windows = ids[: len(ids) // own * own].reshape(-1, own)
    least = max(1, count // _LEAST_SHARE)
    if len(windows) < least:
        raise InvalidInput(
            f"the calibration text has {len(ids):,} tokens, and at least {least * own:,} are needed; give a longer one"
        )
    chosen = _spread(windows, count)
    return np.concatenate([np.tile(np.array(start, np.int64), (len(chosen), 1)), chosen], axis=1)


def _spread(windows: np.ndarray, count: int) -> np.ndarray:
    chosen: np.ndarray = windows[np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)]
    return chosen


def write_windows(source: HuggingFaceSource, count: int, length: int, watch: Watch = silent) -> np.ndarray:
    """int64 (count, length) that the model writes from random first tokens, every token drawn as likely as it finds
    it; the same on every call."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    first = _first_tokens(source, count)
    written = []
    for done in range(0, count, _SIDE_BY_SIDE):
        watch(f"letting the model write text to be calibrated on, {done} of {count}")
        written.append(_write(source.model, first[done : done + _SIDE_BY_SIDE], length, generator))
    return np.concatenate(written)


def _write(model: Any, first: np.ndarray, length: int, generator: Any) -> np.ndarray:
    import torch

    ids = given = torch.from_numpy(first)
    cache = None
    with torch.inference_mode():
        while ids.shape[1] < length:
            result = model(input_ids=given, past_key_values=cache, use_cache=True)
            given = torch.multinomial(result.logits[:, -1].softmax(-1), 1, generator=generator)
            ids, cache = torch.cat([ids, given], dim=1), result.past_key_values
    written: np.ndarray = ids.numpy()
    return written


def _first_tokens(source: HuggingFaceSource, count: int) -> np.ndarray:
    """The beginning of a text, then a random token; one of those with letters, where there are as many."""
    tokenizer = source.tokenizer
    usable = sorted(set(range(min(len(tokenizer), source.config.vocab_size))) - set(tokenizer.all_special_ids))
    shuffled = np.random.default_rng(_SEED).permutation(np.resize(usable, max(count, len(usable)))).tolist()
    tried = shuffled[: 8 * count]
    chosen = [token for token in tried if tokenizer.decode([token]).strip().isalpha()][:count]
    chosen += tried[: count - len(chosen)]
    start = _start(tokenizer)
    return np.array([[*start, token] for token in chosen], np.int64)


def _start(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before a text, for models that were never without."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return ids[:1] if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else []
