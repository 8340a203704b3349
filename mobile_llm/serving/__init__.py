"""A bundle behind OpenAI's HTTP API. Imported by `mobile-llm serve` alone; needs starlette and uvicorn.

Covered: chat completions and completions of models that write, embeddings of embedders, the list of models, each as
OpenAI's clients send and read it; metrics. Not covered: several models, several answers to one request, log
probabilities, images and sound, TLS, browsers on other sites (no CORS).
"""
