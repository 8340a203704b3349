"""Regular expressions in a graph: RE2's, by StringRegexReplace."""

from __future__ import annotations

from exporters.formats.onnx.graph import EXTENSIONS, Graph


def replaced(graph: Graph, texts: str, pattern: str, rewrite: str) -> str:
    """Every match in every string; in `rewrite`, \\0 is the match and \\1 its first group."""
    inputs = [texts, graph.strings(pattern), graph.strings(rewrite)]
    return graph.node("StringRegexReplace", inputs, domain=EXTENSIONS)


def literal(text: str) -> str:
    """A pattern that matches this text alone."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):X}}}" for c in text)
