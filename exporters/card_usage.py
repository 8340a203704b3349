"""How a bundle is used, in a few lines for its card."""

from __future__ import annotations

from collections.abc import Iterator

from mobile_llm.bundle import Manifest
from mobile_llm.bundle.manifest import TaskInfo
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# What transformers.js calls the files; the first that was exported is shown.
_DTYPES = {"int8": "q8", "fp16": "fp16", "fp32": "fp32"}
_CALLS = {
    "feature-extraction": 'print(model.embed("a text").shape)',
    "token-classification": 'print(model.label_tokens(["a text"]))',
    "text-generation": 'print(model.generate([{"role": "user", "content": "a question"}]).text)',
    "tensor": "answer = model.run(inputs)  # numpy arrays by name, as `mobile-llm inspect BUNDLE` lists them",
}
# Of a text classifier by its problem_type.
_PRINTED = {
    SINGLE_LABEL: "answer.label, answer.score",
    MULTI_LABEL: "answer.labels, answer.scores",
    REGRESSION: "answer.value",
}


def usage(manifest: Manifest) -> Iterator[str]:
    """The section of the card. The folder goes by no name of its own: it may be renamed, or published."""
    yield "## How to use it\n"
    yield "`BUNDLE` is this folder, or where it was published.\n"
    artifact = next(iter(manifest.defaults.values()))
    call = _classify(manifest.task) or _CALLS.get(manifest.task.name, "print(model)")
    yield f'```python\nimport mobile_llm\n\nmodel = mobile_llm.load("BUNDLE", artifact="{artifact}")\n{call}\n```\n'
    dtype = next((d for p, d in _DTYPES.items() if f"onnx/{p}" in manifest.artifacts), None)
    if dtype and manifest.tokenizer:
        yield f"In a browser or in Node, with transformers.js:\n\n```js\n{_javascript(manifest, dtype)}\n```\n"
    if "litertlm" in manifest.defaults:
        path = manifest.artifacts[manifest.defaults["litertlm"]].path
        yield f"With LiteRT-LM, here in Python:\n\n```python\n{_litert_lm(path)}\n```\n"


def _classify(task: TaskInfo) -> str | None:
    if task.name != "text-classification":
        return None
    given = '("a text", "another")' if task.text_pairs else '"a text"'
    return f"answer = model.classify({given})[0]\nprint({_PRINTED[task.problem_type or SINGLE_LABEL]})"


def _litert_lm(path: str) -> str:
    return (
        "import litert_lm\n\n"
        f'with litert_lm.Engine("BUNDLE/{path}", backend=litert_lm.Backend.CPU()) as engine:\n'
        "    with engine.create_conversation() as conversation:\n"
        '        print(conversation.send_message("a question"))'
    )


def _javascript(manifest: Manifest, dtype: str) -> str:
    """Its pipeline takes no pairs, and puts a regression's number through a softmax."""
    task = manifest.task
    if task.text_pairs or task.problem_type == REGRESSION:
        return _javascript_logits(task, dtype)
    options = _javascript_options(task)
    return (
        'import { pipeline } from "@huggingface/transformers";\n'
        f'const model = await pipeline("{task.name}", "BUNDLE", {{ dtype: "{dtype}" }});\n'
        f'console.log(await model("a text"{options}));'
    )


def _javascript_options(task: TaskInfo) -> str:
    if task.pooling:
        return f', {{ pooling: "{task.pooling}", normalize: {str(bool(task.normalize)).lower()} }}'
    return ", { top_k: null }" if task.problem_type == MULTI_LABEL else ""


def _javascript_logits(task: TaskInfo, dtype: str) -> str:
    pair = ', { text_pair: "another" }' if task.text_pairs else ""
    return (
        'import { AutoModelForSequenceClassification, AutoTokenizer } from "@huggingface/transformers";\n'
        'const tokenizer = await AutoTokenizer.from_pretrained("BUNDLE");\n'
        f'const model = await AutoModelForSequenceClassification.from_pretrained("BUNDLE", {{ dtype: "{dtype}" }});\n'
        f'const {{ logits }} = await model(tokenizer("a text"{pair}));\n'
        "console.log(logits.data);"
    )
