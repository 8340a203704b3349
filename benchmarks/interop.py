"""A bundle, unchanged, in clients that know nothing of this project, against the PyTorch model it came from.

    python -m benchmarks.interop BUNDLE MODEL [--clients transformers.js,optimum,tensorflow] [--work FOLDER] [--json]

transformers.js in Node and optimum-onnx read the bundle as a Hugging Face folder: config, tokenizer, `onnx/`.
TensorFlow's interpreter reads `tflite/`; its tokens come from the bundle's tokenizer through transformers. Each must
give the tokens, labels and numbers that transformers gives for MODEL. What a client needs is installed in FOLDER, once.

transformers.js cuts a text that is too long after it added the special tokens, and so loses the closing one. No bundle
can change that: such a text is counted under "tokens differ", and compared with MODEL at the tokens that were left.

Not covered: browsers, Core ML, fp16 artifacts, pairs of texts, prompts, models with one logit, a projection after the
pooling, Windows. Multi-label models are compared by their logits and their highest label. What could not be installed
or is not in the bundle is a row that says NOT CHECKED, and no failure.

A client is a process. It reads {bundle, task, labels, pooling, normalize, texts, artifacts} and prints {client,
readings, errors: {artifact: message}}. A reading is {artifact, way, kind: logits | scores | embedding, values, ids,
labels}: an entry per text, null among `values` where the artifact has no room for it; `labels` only with a classifier.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.bundle import Bundle
from mobile_llm.errors import BackendUnavailable, MobileLlmError, UnsupportedModel

TRANSFORMERS_JS = "4.3.1"
OPTIMUM_ONNX = "0.1.0"
# torch alone and first: what else is asked for in the same breath may pull in another build of it.
_OPTIMUM_PACKAGES = (("torch==2.13.0",), (f"optimum-onnx[onnxruntime]=={OPTIMUM_ONNX}",))
_HERE = Path(__file__).with_suffix("")
_PATIENCE = 1800  # seconds for one installation or one client

_ONNX = ("onnx/model.onnx", "onnx/model_quantized.onnx")
ARTIFACTS = {"transformers.js": _ONNX, "optimum": _ONNX, "tensorflow": ("tflite/fp32.tflite", "tflite/int8.tflite")}
EXACT = {"onnx/model.onnx", "tflite/fp32.tflite"}

DIFFERENCE = 1e-4  # fp32 logits and scores: the same sums in another order
COSINE = 0.99999  # fp32 embeddings, likewise
QUANTIZED_COSINE = 0.95  # int8 embeddings: below it neighbours change places
SURE = 2.0  # logits between the first and the second label: 0.88 against 0.12, which int8 must not turn

TEXTS = (
    "A warm, funny and surprisingly moving film.",
    "Two hours I will never get back.",
    "Not bad at all, though the ending drags.",
    "Meh.",
    "",
    "  \t\n ",
    "I love this 😀🎬👩🏽‍🚀 so much!!! ❤️🇫🇷",
    "这部电影非常好看,演员也很棒。 とても面白い映画でした。 정말 재미있어요.",
    "Cafe\u0301 déjà-vu, naïve façade; Straße, ŁÓDŹ, ИНТЕРЕСНО, مرحبا بالعالم",
    "tabs\there,\nnew lines,\r\nzero\u200bwidth and soft\u00adhyphens; see https://example.org/a?b=c&d=%20 (50% off)",
    "The word [MASK] and the end [SEP] are only text here, SHOUTED or whispered.",
    "supercalifragilisticexpialidocious" * 4,
    "The plot is thin, but the actors are wonderful, and the music stays with you. " * 15,
    "It goes on, and on, and on; nobody laughs, and everybody leaves before the end. " * 60,
)


@dataclass(frozen=True)
class Expected:
    """What transformers gives for a text at these tokens. `margin` is between the first and the second label."""

    ids: list[int]
    values: Mapping[str, np.ndarray]
    label: str | None = None
    margin: float = 0.0


@dataclass(frozen=True)
class Reference:
    """The model's answer to each text, and to those that were cut, one at the tokens of a cut without a closing one."""

    texts: tuple[str, ...]
    answers: tuple[Expected, ...]
    blunt: Mapping[int, Expected]
    names: tuple[str, ...]

    def at(self, index: int, ids: list[int]) -> Expected:
        blunt = self.blunt.get(index)
        return blunt if blunt is not None and blunt.ids == ids else self.answers[index]


@dataclass(frozen=True)
class Row:
    """One way of reading one artifact. `verdict` is "pass", "FAIL" or "NOT CHECKED"; `note` says why."""

    client: str
    artifact: str
    way: str
    verdict: str
    difference: float | None = None
    cosine: float | None = None
    labels_differ: int | None = None
    tokens_differ: int | None = None
    note: str = ""


def main() -> int:
    args = _arguments()
    try:
        report = compare(args)
    except MobileLlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"clients": report.clients, "rows": [_finite(row) for row in report.rows]}, indent=2))
    else:
        print_report(report)
    return int(any(row.verdict == "FAIL" for row in report.rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", default=",".join(ARTIFACTS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("build/interop"), metavar="FOLDER", help="installs go here")
    parser.add_argument("--optimum-python", type=Path, metavar="PATH", help="an interpreter that has optimum-onnx")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.clients = args.clients.split(",")
    unknown = [name for name in args.clients if name not in ARTIFACTS]
    if unknown:
        parser.error(f"--clients: {', '.join(unknown)} is none of {', '.join(ARTIFACTS)}")
    return args


@dataclass(frozen=True)
class Report:
    """The rows, and each client that ran with its versions."""

    clients: Mapping[str, str]
    rows: tuple[Row, ...]


def compare(args: argparse.Namespace) -> Report:
    """Each client in turn on the bundle."""
    bundle = Bundle.open(args.bundle)
    reference = read_reference(args.model, bundle)
    task, folder, work = bundle.manifest.task, Path(args.bundle).resolve(), args.work.absolute()
    request: dict[str, Any] = {"bundle": str(folder), "task": task.name, "pooling": task.pooling}
    request |= {"normalize": bool(task.normalize), "labels": reference.names, "texts": reference.texts}
    install: dict[str, Callable[[], list[str]]] = {
        "transformers.js": lambda: install_transformers_js(work / "node"),
        "optimum": lambda: install_optimum(work / "optimum", args.optimum_python),
        "tensorflow": find_tensorflow,
    }
    before, clients, rows = _state(folder), {}, []
    for name in args.clients:
        versions, found = ask(name, install[name], folder, request, reference)
        clients[name] = versions
        rows += found
        if _state(folder) != before:
            rows.append(Row(name, "", "", "FAIL", note="the client changed files in the bundle"))
            before = _state(folder)
    return Report(clients, tuple(rows))


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in files}


# The reference


def read_reference(model: Path, bundle: Bundle) -> Reference:
    """MODEL in transformers, float32, one text at a time."""
    import transformers

    task = bundle.manifest.task
    if task.name not in ("text-classification", "feature-extraction"):
        raise UnsupportedModel(f"{task.name} is not compared here; text-classification and feature-extraction are")
    _note(f"reading {model} with transformers {transformers.__version__}")
    transformers.utils.logging.disable_progress_bar()
    classifies = task.name == "text-classification"
    kind = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModel
    net = kind.from_pretrained(model, local_files_only=True).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
    read = _classifier(net) if classifies else _embedder(net, task.pooling)
    cut = _encode(tokenizer, getattr(net.config, "max_position_embeddings", 512))
    whole = {text: tokenizer(text, verbose=False) for text in cut}
    blunt = {
        i: read({name: ids[: len(cut[text]["input_ids"])] for name, ids in whole[text].items()})
        for i, text in enumerate(cut)
        if len(whole[text]["input_ids"]) > len(cut[text]["input_ids"])
    }
    names = tuple(net.config.id2label[i] for i in range(net.config.num_labels)) if classifies else ()
    return Reference(tuple(cut), tuple(read(one) for one in cut.values()), blunt, names)


def _encode(tokenizer: Any, positions: int) -> dict[str, Any]:
    """The texts with their tokens, without those that the tokenizer leaves longer than the model can read."""
    encoded = {text: tokenizer(text, truncation=True) for text in TEXTS}
    fitting = {text: one for text, one in encoded.items() if len(one["input_ids"]) <= positions}
    if len(fitting) < len(encoded):
        _note(f"{len(encoded) - len(fitting)} texts left out: this tokenizer does not cut them to {positions} tokens")
    return fitting


def _classifier(net: Any) -> Callable[[Any], Expected]:
    if net.config.num_labels < 2:
        raise UnsupportedModel("a model with one logit is not compared here; clients disagree on what it means")

    def read(encoded: Any) -> Expected:
        logits = _run(net, encoded).logits[0].numpy().astype(float)
        second, first = np.sort(logits)[-2:]
        values = {"logits": logits, "scores": _scores(logits, net.config.problem_type)}
        return Expected(encoded["input_ids"], values, net.config.id2label[int(logits.argmax())], float(first - second))

    return read


def _scores(logits: np.ndarray, problem_type: str | None) -> np.ndarray:
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _embedder(net: Any, pooling: str | None) -> Callable[[Any], Expected]:
    if pooling not in ("mean", "cls"):
        raise UnsupportedModel(f"pooling {pooling!r} is not compared here; mean and cls are")

    def read(encoded: Any) -> Expected:
        hidden = _run(net, encoded).last_hidden_state[0].numpy().astype(float)
        return Expected(encoded["input_ids"], {"embedding": hidden[0] if pooling == "cls" else hidden.mean(axis=0)})

    return read


def _run(net: Any, encoded: Any) -> Any:
    import torch

    with torch.no_grad():
        return net(**{name: torch.tensor([ids]) for name, ids in encoded.items()})


# The clients: each function returns the command that starts one, or raises BackendUnavailable with the reason


def install_transformers_js(folder: Path) -> list[str]:
    """npm's copy in FOLDER, beside which the client's script must lie to find it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise BackendUnavailable("Node is not installed: it needs `node` and `npm` on the PATH")
    package = "@huggingface/transformers"
    probe = [node, "-e", f"import('{package}').then((m) => console.log(m.env.version))"]
    folder.mkdir(parents=True, exist_ok=True)
    if not _answers(probe, TRANSFORMERS_JS, folder):
        # The CPU library of onnxruntime-node is in the package; what its install script would fetch is for CUDA.
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"{package}@{TRANSFORMERS_JS}"]
        _install(command, f"installing {package}", {"ONNXRUNTIME_NODE_INSTALL": "skip"})
        _must_answer(probe, TRANSFORMERS_JS, folder)
    script = shutil.copy(_HERE / "transformers_js.mjs", folder)
    return [node, str(script)]


def install_optimum(folder: Path, python: Path | None) -> list[str]:
    """optimum-onnx in an environment of its own, or the one whose interpreter is given."""
    ours = python is None
    python = folder / "bin" / "python" if python is None else python.absolute()
    show = "import optimum.onnxruntime, importlib.metadata as m; print(m.version('optimum-onnx'))"
    probe = [str(python), "-c", show]
    if ours and not _answers(probe, OPTIMUM_ONNX):
        _install([sys.executable, "-m", "venv", "--clear", str(folder)], "making an environment for optimum-onnx")
        for packages in _OPTIMUM_PACKAGES:
            _install([str(python), "-m", "pip", "install", "--quiet", *packages], f"installing {packages[0]}")
    _must_answer(probe, OPTIMUM_ONNX)
    return [str(python), str(_HERE / "optimum_client.py")]


def find_tensorflow() -> list[str]:
    """TensorFlow in this environment."""
    if find_spec("tensorflow") is None:
        raise BackendUnavailable("TensorFlow is not installed: pip install tensorflow")
    return [sys.executable, str(_HERE / "tensorflow_client.py")]


def _answers(probe: list[str], version: str, folder: Path | None = None) -> bool:
    try:
        _must_answer(probe, version, folder)
    except BackendUnavailable:
        return False
    return True


def _must_answer(probe: list[str], version: str, folder: Path | None = None) -> None:
    done = _process(probe, cwd=folder)
    if done.returncode:
        raise BackendUnavailable(f"it does not load: {_reason(done.stderr)}")
    if _last_line(done.stdout) != version:
        raise BackendUnavailable(f"version {version} is needed, {_last_line(done.stdout)} is installed")


def _install(command: list[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    _note(what)
    done = _process(command, environment=environment)
    if done.returncode:
        raise BackendUnavailable(f"{what} failed: {_reason(done.stderr or done.stdout)}")


def _process(
    command: list[str], stdin: str = "", environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A process that does not raise: what keeps it from ending well is its return code and its last line."""
    settings = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=settings, cwd=cwd, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it took more than {_PATIENCE} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", f"{Path(command[0]).name}: {error.strerror}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def _reason(text: str) -> str:
    """The first lines that speak of an error: npm, pip and Node each end with a line that does not."""
    lines = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    return " | ".join(lines[:3])[:400] or _last_line(text)


# Asking a client, and judging its answer


def ask(
    name: str, install: Callable[[], list[str]], bundle: Path, request: Mapping[str, Any], reference: Reference
) -> tuple[str, list[Row]]:
    """The client with its versions, and a row or more for each artifact it should read."""
    present = [artifact for artifact in ARTIFACTS[name] if (bundle / artifact).exists()]
    missing = [artifact for artifact in ARTIFACTS[name] if artifact not in present]
    rows = [Row(name, artifact, "", "NOT CHECKED", note="it is not in the bundle") for artifact in missing]
    try:
        command = install()
    except BackendUnavailable as error:
        return "not installed", rows + [Row(name, artifact, "", "NOT CHECKED", note=str(error)) for artifact in present]
    _note(f"asking {name}")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = _process(command, json.dumps({**request, "artifacts": present}), offline)
    try:
        answer = json.loads(_last_line(done.stdout))
    except ValueError:
        note = f"it ended with code {done.returncode} and no answer: {_reason(done.stderr)}"
        return name, rows + [Row(name, artifact, "", "FAIL", note=note) for artifact in present]
    for artifact in present:
        rows += judge_artifact(name, artifact, answer, reference)
    return answer["client"], rows


def judge_artifact(client: str, artifact: str, answer: Mapping[str, Any], reference: Reference) -> list[Row]:
    """One row per reading; an artifact without one has failed."""
    readings = [reading for reading in answer["readings"] if reading["artifact"] == artifact]
    if not readings:
        return [Row(client, artifact, "", "FAIL", note=answer["errors"].get(artifact, "the client gave no reading"))]
    return [judge(client, reading, reference) for reading in readings]


def judge(client: str, reading: Mapping[str, Any], reference: Reference) -> Row:
    """A reading against the reference, on the texts that the artifact has room for."""
    artifact, way, kind, values, ids = (reading[key] for key in ("artifact", "way", "kind", "values", "ids"))
    if len(values) != len(reference.texts):
        note = f"{len(values)} answers to {len(reference.texts)} texts"
        return Row(client, artifact, way, "FAIL", note=note)
    kept = [i for i, value in enumerate(values) if value is not None]
    if not kept:
        return Row(client, artifact, way, "NOT CHECKED", note="the artifact has room for none of the texts")
    expected = {i: reference.at(i, ids[i]) for i in kept}
    actual = np.array([values[i] for i in kept], dtype=float)
    wanted = np.stack([expected[i].values[kind] for i in kept])
    if actual.shape != wanted.shape:
        note = f"{actual.shape[1:]} numbers for each text instead of {wanted.shape[1:]}"
        return Row(client, artifact, way, "FAIL", note=note)
    difference = float(np.abs(actual - wanted).max()) if kind != "embedding" else None
    cosine = _smallest_cosine(actual, wanted) if kind == "embedding" else None
    labels = reading.get("labels")
    turned = [expected[i].margin for i in kept if labels and labels[i] != expected[i].label]
    blunt = [i for i in kept if ids[i] != reference.answers[i].ids and ids[i] == expected[i].ids]
    strange = [reference.texts[i][:40] for i in kept if ids[i] != expected[i].ids]
    problems = [*_beyond(artifact, difference, cosine), *_wrong_labels(artifact, turned), *_wrong_tokens(strange)]
    remarks = _remarks(len(values) - len(kept), len(blunt), turned)
    verdict, note = "FAIL" if problems else "pass", "; ".join(problems + remarks)
    tokens_differ = len(strange) + len(blunt)
    labels_differ = len(turned) if labels else None
    return Row(client, artifact, way, verdict, difference, cosine, labels_differ, tokens_differ, note)


def _smallest_cosine(actual: np.ndarray, wanted: np.ndarray) -> float:
    lengths = np.linalg.norm(actual, axis=1) * np.linalg.norm(wanted, axis=1)
    with np.errstate(invalid="ignore"):  # a vector of zeros has no direction: NaN, which fails
        return float(((actual * wanted).sum(axis=1) / lengths).min())


def _beyond(artifact: str, difference: float | None, cosine: float | None) -> list[str]:
    """What is beyond its limit. Written so that a NaN is, too."""
    problems = []
    most = DIFFERENCE if artifact in EXACT else float("inf")
    least = COSINE if artifact in EXACT else QUANTIZED_COSINE
    if difference is not None and not difference < most:
        problems.append(f"a difference of {difference:.2g}, the limit is {most:g}")
    if cosine is not None and not cosine >= least:
        problems.append(f"a cosine of {cosine:.5f}, the limit is {least:g}")
    return problems


def _wrong_labels(artifact: str, turned: list[float]) -> list[str]:
    wrong = [margin for margin in turned if artifact in EXACT or margin > SURE]
    return [f"{len(wrong)} labels differ that should not"] if wrong else []


def _wrong_tokens(texts: list[str]) -> list[str]:
    return [f"other tokens for {', '.join(map(repr, texts))}"] if texts else []


def _remarks(too_long: int, blunt: int, turned: list[float]) -> list[str]:
    remarks = []
    if too_long:
        remarks.append(f"texts longer than every signature, and not compared: {too_long}")
    if blunt:
        remarks.append(f"texts cut without their closing token, and compared at the tokens left: {blunt}")
    if turned:
        remarks.append(f"labels differ at margins of {', '.join(f'{margin:.2f}' for margin in turned)}")
    return remarks


# Printing


def print_report(report: Report) -> None:
    """The table, then each note in full."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    style = {"pass": "green", "FAIL": "bold red", "NOT CHECKED": "bold yellow"}
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("client", "artifact", "way", "difference", "cosine", "labels differ", "tokens differ", "verdict"):
        table.add_column(name, justify="right" if name not in ("client", "artifact", "way", "verdict") else "left")
    for row in report.rows:
        figures = (_figure(row.difference, ".2g"), _figure(row.cosine, ".6f"))
        counts = (_figure(row.labels_differ, "d"), _figure(row.tokens_differ, "d"))
        verdict = f"[{style[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.client, row.artifact, row.way, *figures, *counts, verdict)
    console.print(table)
    for name, versions in report.clients.items():
        console.print(f"{name}: {versions}", highlight=False, markup=False)
    for row in report.rows:
        if row.note:
            where = " ".join(part for part in (row.client, row.artifact, row.way) if part)
            console.print(f"[{style[row.verdict]}]{row.verdict}[/] {escape(f'{where}: {row.note}')}", highlight=False)


def _finite(row: Row) -> dict[str, Any]:
    """The row for JSON, which has no NaN; the note has it."""
    return {
        name: None if value in (np.inf, -np.inf) or value != value else value for name, value in asdict(row).items()
    }


def _figure(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
