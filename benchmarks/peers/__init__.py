"""Our ONNX and TFLite artifacts beside those who run the same model, in one interleaved run.

    python -m benchmarks.peers MODEL [BUNDLE] --twin 0 --text TEXT [--calibration TEXT --max-size MB] [--json]

onnxruntime-genai (on its own builder's int4), llama.cpp (on GGUF files that it quantizes itself), LiteRT-LM (on a
.litertlm file from these weights) and transformers (float32, the reference) are installed into environments of their
own under `--work`, once; what cannot be is listed as not checked, with the reason. All read the same token ids with the
same number of threads, a batch of one, no speculation; LiteRT-LM takes texts only, so it is given that of the ids, and
its rates count its own tokens.

| | how |
|---|---|
| prefill | tokens a second, a prompt of so many tokens to the logits after it |
| decode | tokens a second over 128, each the likeliest, after a prompt of 128 |
| load | a fresh process, imports done, to a model that can be asked; ours with its hashes checked; files in memory |
| TTFT | the first prompt of 128 tokens in that process, up to the logits |
| memory | its peak after writing 128 tokens, above the peak before the load; the cache is named apart |
| size | the files with weights; GGUF without a tokenizer, as ours |
| KL | of the reference's next-token probabilities over an artifact's; in windows of 256 tokens read one by one |
| perplexity | on the same windows |

Ratios are taken round by round. MODEL is a folder of transformers; without BUNDLE it is exported. `--twin SEED` works
on the same function with permuted weights (see `twin.py`): statements about 4 bits need it where weights were 4 bits.

Not covered: phones, energy, batches, sampling, Windows; GGUF of other architectures than Llama.
"""
