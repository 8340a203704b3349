"""A bundle, unchanged, in clients that know nothing of this project.

    python -m benchmarks.interop BUNDLE [MODEL] [--clients transformers.js,optimum] [--work FOLDER] [--json]

What a client needs is installed in FOLDER, once. What could not be installed or is not in the bundle is a row that says
NOT CHECKED, and no failure.

Models that write: transformers.js in Node, optimum-onnx, onnxruntime-genai (the artifact that genai_config.json names)
and LiteRT-LM (`.litertlm` files) write up to 50 tokens after texts and, each through its own template, conversations,
greedily; each must give the ids of the prompts, and what the bundle's own runtime writes from the same file. Where two
tokens are as good as equally likely the other is no failure, is said, and ends the comparison of that text. LiteRT-LM
gives texts only, which are tokenized here to be compared.

Classifiers and embedders are compared with MODEL, the PyTorch model they came from. transformers.js and optimum-onnx
read the bundle as a Hugging Face folder: config, tokenizer, `onnx/`.
TensorFlow's interpreter reads `tflite/`; its tokens come from the bundle's tokenizer through transformers. Each must
give the tokens, labels and numbers that transformers gives for MODEL.

transformers.js cuts a text that is too long after it added the special tokens, and so loses the closing one. No bundle
can change that: such a text is counted under "tokens differ", and compared with MODEL at the tokens that were left.

Not covered: browsers, Core ML, fp16 artifacts, pairs of texts, prompts, models with one logit, a projection after the
pooling, sampling, Windows. Multi-label models are compared by their logits and their highest label.

A client is a process. It reads {bundle, task, labels, pooling, normalize, texts, artifacts} and prints {client,
readings, errors: {artifact: message}}. A reading is {artifact, way, kind: logits | scores | embedding, values, ids,
labels}: an entry per text, null among `values` where the artifact has no room for it; `labels` only with a classifier.
Of a model that writes it reads {bundle, prompts: [{text} or {messages}], count, artifacts}, and a reading is {artifact,
way, prompts: ids, written: ids}, or {artifact, way, texts}.
"""
