"""One opened decoder: a sequence of tokens, what of it the KV cache holds, and the logits of what comes next.

One engine is one owner of native state: used by two threads at once it raises Busy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_llm.backends import Decoder
from mobile_llm.bundle import Artifact, Bundle, Manifest
from mobile_llm.engine import find_backend
from mobile_llm.errors import BackendUnavailable, ContextFull, InvalidInput, WrongTask
from mobile_llm.owner import Owner


class DecoderEngine(Owner):
    """An artifact with a KV cache, opened once its files are checked. Use as a context manager or `close()` it."""

    def __init__(
        self, bundle: Bundle, artifact_id: str, artifact: Artifact, decoder: Decoder, context: int | None = None
    ) -> None:
        super().__init__()
        self.bundle = bundle
        self.artifact_id = artifact_id
        self.artifact = artifact
        self._decoder = decoder
        self._context = decoder.context if context is None else min(context, decoder.context)
        self._read: list[int] = []

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        artifact: str | None = None,
        threads: int | None = None,
        backend: str | None = None,
        context: int | None = None,
    ) -> DecoderEngine:
        """As `Engine.open`, with a context that may be shorter than the artifact's. Raises WrongTask for an artifact
        that keeps no cache."""
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        artifact_id, chosen = opened.choose(artifact)
        if chosen.cache is None:
            raise WrongTask(f"{artifact_id} of {opened.folder.name} has no KV cache, so it writes no text")
        module = find_backend(opened, chosen, backend)
        if not hasattr(module, "open_decoder"):
            raise BackendUnavailable(f"the backend {backend or chosen.format!r} runs no models that write text")
        return cls(opened, artifact_id, chosen, module.open_decoder(opened.folder, chosen, threads), context)

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @property
    def context(self) -> int:
        """The most tokens that a prompt and its answer have together."""
        return self._context

    @property
    def tokens(self) -> tuple[int, ...]:
        """What has been read."""
        return tuple(self._read)

    def append(self, ids: Sequence[int]) -> np.ndarray:
        """Read tokens, and give the logits (vocabulary,) of what comes after them.

        Raises ContextFull where they do not fit, InvalidInput for none.
        """
        return self._reading(ids, self._decoder.append)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Read tokens, and give the logits (len(ids), vocabulary) of what comes after each: one by one where the
        artifact has no entry for it. Raises as `append`."""
        return self._reading(ids, self._decoder.score if self.artifact.scoring else self._step_by_step)

    def _step_by_step(self, ids: Sequence[int]) -> np.ndarray:
        return np.stack([self._decoder.append([token]) for token in ids])

    def _reading(self, ids: Sequence[int], read: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        if not ids:
            raise InvalidInput("no tokens to read; a prompt has at least one")
        room = self.context - len(self._read)
        if len(ids) > room:
            raise ContextFull(
                f"{len(ids)} more tokens do not fit: {len(self._read)} of the context's {self.context} are taken; "
                "shorten the prompt, or export with a longer --context"
            )
        with self._owned():
            try:
                logits = read(ids)
                self._read += ids
            except BaseException:  # Ctrl-C too: some of it may have been read
                self._decoder.rewind(len(self._read))
                raise
            return logits

    def continue_with(self, ids: Sequence[int]) -> np.ndarray:
        """Make `ids` the whole sequence, and give the logits after it. What is `shared` is not read again."""
        kept = self.shared(ids)
        self.rewind(kept)
        return self.append(ids[kept:])

    def shared(self, ids: Sequence[int]) -> int:
        """How many of `ids` have been read already, in their place; never the last, since only reading gives logits."""
        same = next((i for i, (a, b) in enumerate(zip(self._read, ids)) if a != b), min(len(self._read), len(ids)))
        return max(0, min(same, len(ids) - 1))

    def rewind(self, position: int) -> None:
        """Forget all tokens from `position` on, if any were read."""
        with self._owned():
            self._decoder.rewind(min(position, len(self._read)))
            del self._read[position:]

    def save_cache(self, tokens: int) -> dict[str, np.ndarray]:
        """The cache of the first `tokens` read, by role. Raises BackendUnavailable where the artifact keeps it."""
        with self._owned():
            return self._decoder.save_cache(tokens)

    def load_cache(self, ids: Sequence[int], rows: Mapping[str, np.ndarray]) -> None:
        """Make `ids` what has been read, and `rows` its cache. Raises BackendUnavailable, and IntegrityFailed for rows
        of another cache or other sizes; nothing is changed then."""
        with self._owned():
            self._decoder.load_cache(rows, len(ids))
            self._read = list(ids)

    def close(self) -> None:
        """Free native memory. Raises Busy where another thread is inside."""
        with self._owned():
            self._decoder.close()
