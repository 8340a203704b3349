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
