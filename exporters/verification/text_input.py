"""An artifact that takes strings: the ids its graph finds in texts, then its answers to them, as of any artifact.

The tokenizer inside is compared with the bundle's own, on the golden texts and on more that its operators are known to
get wrong when they are used as they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np

from exporters.memory import release
from exporters.verification.artifacts import ArtifactCheck
from exporters.verification.limits import Against
from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.backends.onnx import EXTENSIONS
from mobile_llm.bundle import Bundle, EntryPoint
from mobile_llm.bundle.golden import Golden
from mobile_llm.engine import Engine
from mobile_llm.errors import BackendUnavailable, VerificationFailed
from mobile_llm.tasks.encoding import ENCODE_TEXT, TOKENIZE, StringEncoder
from mobile_llm.tasks.tokenization import TextTokenizer

# Beyond the golden texts; what a tokenizer lacks in its vocabulary or writes otherwise is part of the question.
TEXTS = (
    "a film☃ with snow☃man, film\u20acs",  # pieces before an unknown one
    "x" * 100 + " " + "x" * 101 + " y",  # the longest word, and one longer
    "[MASK][SEP]film[MASK] [mask] <mask>\n<mask> film",
    "\x01\x02film\x7f\x80 a\u200db\u00adc\ufffdd\u2028e\u0085f",  # dropped, or spaces
    "\ue000private\U000f0000planes\U0010fffd \U000e0041tag",
    "각 \u1100\u1161\u11a8 한국어",  # Hangul, whole and in letters
    "e\u0301 o\u0302\u0301 q\u0323\u0307 a\u0328\u0301",  # marks on letters
    "ǅ ẞ ŉ ΑΣ ﬄ Ⅷ ⓐ İI ıi",  # lower case of one letter, and of several
    "\u037e \u0387 \u2329 \ufa10 \U0002f800 \U00031350",  # what is something else by decomposition
    "\t\n \r\n  ",
    "i <3",  # ends within what could be a special token
    "a [",
    "don't can't we'll I'M 12345 a1b2 __x__ $5.00 ¿qué? «ja»",
)

# Where an operator is known to differ and nothing in a graph can help: not a failure, and never passed over.
_NEXT_LINE = "HfJsonTokenizer takes U+0085 (next line) for no space, so texts with it may get other ids"
LISTED = {"a \x85b": _NEXT_LINE, "  \x85": _NEXT_LINE}


def check_text_artifact(bundle: Bundle, artifact_id: str, golden: Golden) -> Iterator[Row]:
    """The rows of one artifact with its tokenizer inside."""
    precision = bundle.manifest.artifacts[artifact_id].precision
    yield from _check_in(bundle, artifact_id, golden, "reference", "onnx")
    if precision != "fp32":
        yield from _check_in(bundle, artifact_id, golden, "twin", "onnx-exact")


def _check_in(bundle: Bundle, artifact_id: str, golden: Golden, against: Against, backend: str) -> Iterator[Row]:
    try:
        with Engine.open(bundle, artifact_id, threads=2, backend=backend) as engine:
            where = here(f"{backend} (onnxruntime {version('onnxruntime')}, {EXTENSIONS} {version(EXTENSIONS)})")
            yield from TextInputCheck(engine, golden, against, where).rows()
    except BackendUnavailable as error:
        yield not_checked(artifact_id, ENCODE_TEXT, f"parity in {backend}", str(error))
    except VerificationFailed as error:
        yield Row(artifact_id, ENCODE_TEXT, f"parity in {backend}", None, None, "failed", str(error), here(backend))
    finally:
        release()


class TextInputCheck(ArtifactCheck):
    """Sends the golden texts through as strings."""

    _role = ENCODE_TEXT

    def __init__(self, engine: Engine, golden: Golden, against: Against, where: str) -> None:
        super().__init__(engine, golden, against, where)
        self._strings = StringEncoder(engine)
        self._probes = self._probes[: len(golden.inputs.texts)]

    def rows(self) -> Iterator[Row]:
        """Answers to other ids than the model was asked for are not compared with its answers."""
        ids = self._ids()
        if self._against == "reference":
            yield ids
            yield from self._listed()
        if ids.status == "passed":
            yield from super().rows()

    @property
    def _source(self) -> str:
        """The twin is that of the artifact whose weights these are."""
        return self._engine.artifact_id.removesuffix("-text") if self._against == "twin" else "reference"

    def _parity(self, entry: EntryPoint) -> Iterator[Row]:
        chosen = range(len(self._probes))
        alone = [self._answer(entry, [i]) for i in chosen]
        yield from self._compare(ENCODE_TEXT, {n: np.concatenate([a[n] for a in alone]) for n in alone[0]}, chosen)

    def _outputs(self, entry: EntryPoint, probes: Sequence[int]) -> dict[str, np.ndarray]:
        (probe,) = probes
        return self._strings.run(self._golden.inputs.texts[probe].text, ENCODE_TEXT)

    def _ids(self) -> Row:
        """How many texts get other ids in the graph than from tokenizer.json; the first is shown."""
        tokenizer = TextTokenizer(self._engine.bundle)
        wanted = {text.text: text.ids for text in self._golden.inputs.texts}
        wanted |= {text: tokenizer.encode(text).ids for text in TEXTS}
        unlike = [text for text, ids in wanted.items() if self._found(text) != ids]
        status: Status = "failed" if unlike else "passed"
        reason = "the tokenizer in the graph must be the bundle's; operators differ in versions of Unicode and in rules"
        if unlike:
            reason = f"the first is {unlike[0][:80]!r}: its tokenizer cannot go into a graph; export without text input"
        metric = "texts whose ids differ in the graph"
        return Row(self._engine.artifact_id, TOKENIZE, metric, float(len(unlike)), 0.0, status, reason, self._where)

    def _listed(self) -> Iterator[Row]:
        tokenizer = TextTokenizer(self._engine.bundle)
        for text, why in LISTED.items():
            if self._found(text) != tokenizer.encode(text).ids:
                yield not_checked(self._engine.artifact_id, TOKENIZE, f"texts such as {text!r}", why)

    def _found(self, text: str) -> tuple[int, ...]:
        return tuple(int(i) for i in self._strings.run(text, TOKENIZE)["input_ids"][0])
