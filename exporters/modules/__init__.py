"""A torch module or a Keras model, in memory, to a compared bundle. `spec` and the rest are imported from their files:
whoever only asks what a module is loads no converter."""
