"""Whether LiteRT-LM loads a bundle's .litertlm files unchanged, and writes what the bundle's own runtime writes.

The client is installed into an environment of its own and started once for each artifact. It is asked for the ids of
the bundle's golden texts, for the prompts of its golden conversations, and for greedy answers, to a conversation and
to what is said after it. What follows on an answer that was cut short is not compared: LiteRT-LM goes on without the
template's end of that answer. Not covered: its executors for GPUs and NPUs, sampling, tools.
"""
