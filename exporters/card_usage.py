"""How a bundle is used, in a few lines for its card."""

from __future__ import annotations

from collections.abc import Iterator

from mobile_llm.bundle import Manifest

# What transformers.js calls the files; the first that was exported is shown.
_DTYPES = {"int8": "q8", "fp16": "fp16", "fp32": "fp32"}
_CALLS = {
    "text-classification": 'answer = model.classify("a text")[0]\nprint(answer.label, answer.score)',
    "feature-extraction": 'print(model.embed("a text").shape)',
    "token-classification": 'print(model.label_tokens(["a text"]))',
    "text-generation": 'print(model.generate([{"role": "user", "content": "a question"}]).text)',
    "tensor": "answer = model.run(inputs)  # numpy arrays by name, as `mobile-llm inspect BUNDLE` lists them",
}


def usage(manifest: Manifest) -> Iterator[str]:
    """The section of the card. The folder goes by no name of its own: it may be renamed, or published."""
    yield "## How to use it\n"
    yield "`BUNDLE` is this folder, or where it was published.\n"
    artifact = next(iter(manifest.defaults.values()))
    call = _CALLS.get(manifest.task.name, "print(model)")
    yield f'```python\nimport mobile_llm\n\nmodel = mobile_llm.load("BUNDLE", artifact="{artifact}")\n{call}\n```\n'
    dtype = next((d for p, d in _DTYPES.items() if f"onnx/{p}" in manifest.artifacts), None)
    if dtype and manifest.tokenizer:
        yield f"In a browser or in Node, with transformers.js:\n\n```js\n{_javascript(manifest, dtype)}\n```\n"


def _javascript(manifest: Manifest, dtype: str) -> str:
    task = manifest.task
    options = f'{{ pooling: "{task.pooling}", normalize: {str(bool(task.normalize)).lower()} }}' if task.pooling else ""
    return (
        'import { pipeline } from "@huggingface/transformers";\n'
        f'const model = await pipeline("{task.name}", "BUNDLE", {{ dtype: "{dtype}" }});\n'
        f'console.log(await model("a text"{", " + options if options else ""}));'
    )
