"""An artifact's own graph and weights, run in float32 arithmetic.

Integer kernels round activations, and float16 rounds everything: noise of 1e-3 to 1e-1 in which an error of
conversion could hide. So each such artifact is opened a second time with its integers widened to float32, or its
float16 results left unrounded, and has to agree with its PyTorch twin as closely as a float32 artifact does. Each
module is a backend of `mobile_llm.backends`.
"""
