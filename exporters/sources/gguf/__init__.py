"""A model in a GGUF file: settings, tokenizer, chat template and weights in one, often quantized.

Covered are the decoders of `config.FAMILIES`. Files that lie beside it in a folder (config.json, tokenizer.json, …) say
more than the file can, and win. Weights are widened to float32: the model that an export is compared with is what the
file holds, not what it was made from.
"""
