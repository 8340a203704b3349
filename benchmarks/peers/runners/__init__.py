"""What runs one contestant each, in the environment of its own: the standard library, numpy and its runtime only.

A runner is started with one JSON document as its argument: {model, threads, context, …}. It answers each line of JSON
on stdin with one on stdout; the first comes unasked, once the model is loaded. A failure is {"error": "…"}, what its
runtime does not offer {"not_checked": "…"}.

| `do` | wants | gives |
|---|---|---|
| (loaded) | | version, load_ms, imports_bytes (the peak before) |
| prefill | ids, text | tokens, ms |
| decode | ids, text, count | tokens, ms: of the tokens written after `ids` alone |
| quality | ids, expected, save | loss, divergence, same: see `serve.py` |
| memory | | peak_bytes, kv_bytes |

`text` is that of the ids, for runtimes that take no ids; `tokens` is how many they made of it.
"""
