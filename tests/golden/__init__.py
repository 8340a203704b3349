"""Golden vectors: what the runtimes in Python, Kotlin and Swift have to agree on. README.md says how to read them."""
