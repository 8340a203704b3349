"""A torch module or a Keras model, in memory, to a bundle: the walk beside `exporters.pipeline`, which is for encoders
with texts around them. It shares staging, packaging, rows, limits and the gate with it."""
