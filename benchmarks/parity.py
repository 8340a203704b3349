"""Whether float artifacts choose the tokens that the PyTorch model chooses, on real text and on their own.

    python -m benchmarks.parity BUNDLE MODEL --text FILE [--artifact LIST] [--positions 2000] [--prompts 20]
                                [--tokens 200] [--threads N] [--json]

Two questions of each artifact. Teacher-forced: at how many positions of the text is its likeliest token the model's?
Greedy: after how many beginnings of the text does it write the same tokens? Where the model's best two tokens are less
than .001 apart another order of sums may swap them, and with less than .03 a cache in float16, as Core ML's is: such
places are listed, and the model's token is read on from there. fp16 artifacts are compared with the model whose weights
are rounded to float16; Core ML runs in our evaluator, which is slow. Exit code 1 where a token differs that the model
was sure of, or where fewer than 99.8 % of the positions agree, undecided ones counted. Not covered: int8 and int4,
phones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.processes import say
from exporters.architectures.decoders import describe_decoder
from exporters.data.plain import read_text
from exporters.decoders.reference import DecoderReference
from exporters.held import holding
from exporters.quantization.integers import to_float16
from exporters.sources.huggingface import open_source
from exporters.spec import GENERATION
from exporters.verification.artifacts import CHECKERS
from exporters.verification.decoders import noise_of
from exporters.verification.perplexity import windows_of
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_decoder import Written
from mobile_llm.errors import InvalidInput, MobileLlmError
from mobile_llm.generation.engine import DecoderEngine

_WINDOW = 256  # tokens
_PROMPT = 32  # tokens of a window that an answer begins with
_FLOAT = ("fp32", "fp16")
_LEAST = 0.998  # of the positions


@dataclass(frozen=True, eq=False)
class Asked:
    """What the model says: after each token of `windows` (count, length) its likeliest and by how much, and what it
    writes after the beginnings of others."""

    windows: np.ndarray
    likeliest: np.ndarray
    margins: np.ndarray
    written: tuple[Written, ...]


@dataclass(frozen=True)
class Found:
    """Of one artifact. Places that differ are (text, place, the model's margin); `undecided` are those of them where
    the margin is at most `bound`."""

    artifact: str
    positions: int
    agreement: float
    answers: int
    identical: int
    tokens: int
    bound: float
    differing: list[tuple[str, int, float]] = field(default_factory=list)
    undecided: list[tuple[str, int, float]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.differing and self.agreement >= _LEAST


def main() -> int:
    args = _arguments()
    try:
        found = measure(args)
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps([asdict(one) for one in found]) if args.json else "\n".join(map(_in_words, found)))
    return 0 if all(one.holds for one in found) else 1


def measure(args: argparse.Namespace) -> list[Found]:
    """Raises InvalidInput for an artifact in integers and for a text that is too short."""
    bundle, asked = Bundle.open(args.bundle), cache(partial(_asked, args))
    ids = [name for name, artifact in bundle.manifest.artifacts.items() if artifact.precision in _FLOAT]
    wanted = args.artifact.split(",") if args.artifact else ids
    return [_measure(bundle, name, asked, args.threads) for name in wanted]


def _measure(bundle: Bundle, asked_id: str, ask: Callable[[str], Asked], threads: int | None) -> Found:
    artifact_id, artifact = bundle.choose(asked_id)
    if artifact.precision not in _FLOAT:
        raise InvalidInput(f"{artifact_id} is not in float; ask `mobile-llm evaluate` what it loses")
    asked = ask(artifact.precision)
    backend, _ = CHECKERS[artifact.format][0]
    with DecoderEngine.open(bundle, artifact_id, threads=threads, backend=backend) as engine:
        say(f"{artifact_id}: {asked.likeliest.size} positions")
        read = np.stack([_likeliest(engine, window) for window in asked.windows])
        places = [(f"window {w}", int(p), float(asked.margins[w, p])) for w, p in np.argwhere(read != asked.likeliest)]
        agreement, identical = float((read == asked.likeliest).mean()), 0
        for number, written in enumerate(asked.written):
            say(f"{artifact_id}: answer {number + 1} of {len(asked.written)}")
            others = [(f"answer {number}", place, margin) for place, margin in _parted(engine, written)]
            identical += not others
            places += others
    bound, tokens = noise_of(artifact), sum(len(written.tokens) for written in asked.written)
    differing, undecided = ([place for place in places if (place[2] > bound) == sure] for sure in (True, False))
    return Found(artifact_id, read.size, agreement, len(asked.written), identical, tokens, bound, differing, undecided)


def _asked(args: argparse.Namespace, precision: str) -> Asked:
    say(f"the model in {precision}")
    source = open_source(args.model, GENERATION)
    ids = source.tokenizer(read_text(args.text), add_special_tokens=False, verbose=False)["input_ids"]
    windows = windows_of(ids, _WINDOW)
    count = -(-args.positions // _WINDOW)
    if len(windows) < max(count, args.prompts):
        raise InvalidInput(f"{args.text} has {len(windows)} windows of {_WINDOW} tokens; give a longer text")
    with ExitStack() as undo:
        if precision == "fp16":
            undo.enter_context(holding(source.model, to_float16(describe_decoder(source.model))))
        model = DecoderReference(source.model, ())
        likeliest, margins = zip(*(_best(model.logits(window.tolist())) for window in windows[:count]))
        written = tuple(model.write(window[:_PROMPT].tolist(), args.tokens) for window in windows[: args.prompts])
    return Asked(windows[:count], np.stack(likeliest), np.stack(margins), written)


def _best(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    second, first = np.partition(logits, -2, axis=-1)[:, -2:].T
    return logits.argmax(-1), first - second


def _likeliest(engine: DecoderEngine, window: np.ndarray) -> np.ndarray:
    engine.rewind(0)
    return engine.score(window.tolist()).argmax(-1)


def _parted(engine: DecoderEngine, written: Written) -> Iterator[tuple[int, float]]:
    logits = engine.continue_with(written.prompt)
    for place, (token, margin) in enumerate(zip(written.tokens, written.margins)):
        if int(logits.argmax()) != token:
            yield place, margin
        logits = engine.append([token])


def _in_words(found: Found) -> str:
    lines = [
        f"{found.artifact}: {100 * found.agreement:.3f} % of {found.positions} positions, "
        f"{found.identical} of {found.answers} greedy answers identical ({found.tokens} tokens)"
    ]
    for name, places in (("differs", found.differing), ("undecided", found.undecided)):
        lines += [f"  {name}: {text}, token {place}, margin {margin:.2g}" for text, place, margin in places]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE")
    parser.add_argument("--artifact", metavar="LIST", help="such as onnx/fp32,coreml/fp16; default: all in float")
    parser.add_argument("--positions", type=int, default=2000, metavar="N", help="default: 2000, in whole windows")
    parser.add_argument("--prompts", type=int, default=20, metavar="N")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="of an answer; default: 200")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
