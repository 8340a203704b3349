"""`mobile-llm serve`: a bundle behind OpenAI's HTTP API, on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = "serve a model that writes, or an embedder, to OpenAI's clients on this machine"
EXTRA = "serve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="the bundle's folder")
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help="address; others than loopback need a key")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="8000; 0 takes any that is free")
    parser.add_argument("--api-key-file", metavar="FILE", help="holds the key (or the variable MOBILE_LLM_API_KEY)")
    parser.add_argument("--queue", type=int, default=8, metavar="N", help="requests that wait; more get status 429 (8)")
    parser.add_argument("--body-mb", type=int, default=4, metavar="N", help="of a request; more gets status 413 (4)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of a prompt and its answer")
    parser.add_argument("--describe-tools", action="store_true", help="in words, to a model that knows no tools")
    parser.add_argument("--artifact", metavar="ID", help="such as onnx/int8 (default: the bundle's)")
    parser.add_argument("--backend", metavar="NAME", help="another runtime, such as coreml-evaluator")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime")


def run(args: argparse.Namespace) -> int:
    import os

    import mobile_llm
    from mobile_llm.serving.app import make_app
    from mobile_llm.serving.listening import listen, serve
    from mobile_llm.serving.settings import Settings, read_key

    key = read_key(args.api_key_file, os.environ)
    settings = Settings(args.host, args.port, key, args.body_mb * 1_000_000, args.queue, args.describe_tools)
    with listen(settings) as socket:
        model = mobile_llm.load(args.bundle, args.artifact, args.threads, args.backend, args.context)
        try:
            app = make_app(model, settings)
            _announce(app.state.server, socket.getsockname(), args.json)
            serve(app, socket)
        finally:
            model.close()
    return 0


def _announce(server: Any, address: Any, as_json: bool) -> None:
    from mobile_llm.commands import print_json

    name, port = address[:2]
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}/v1"
    if as_json:
        print_json({"url": url, "model": server.id, "artifact": server.model.engine.artifact_id})
    else:
        sys.stdout.write(f"{server.id} at {url}; Ctrl-C ends\n")
    sys.stdout.flush()
