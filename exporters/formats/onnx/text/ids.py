"""What every tokenizer in a graph ends with: truncation, special tokens, the mask and the token types."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from exporters.formats.onnx.graph import INT64, Graph

if TYPE_CHECKING:
    from exporters.formats.onnx.text import Ends

# From a graph and the text (1,), the ids of the text alone, int64 (n).
BareIds = Callable[[Graph, str], str]


def front_model(bare_ids: BareIds, ends: Ends) -> Any:
    """`text` (1,) -> `input_ids`, `attention_mask`, `token_type_ids`, int64 (1, sequence)."""
    graph = Graph("tokenizer")
    text = graph.input("text", TensorProto.STRING, (1,))
    bare = bare_ids(graph, text)
    kept = graph.node("Slice", [bare, graph.vector(0), graph.vector(ends.room), graph.vector(0)])
    parts = [graph.vector(*ends.before)] * bool(ends.before) + [kept] + [graph.vector(*ends.after)] * bool(ends.after)
    row = graph.node("Concat", parts, axis=0)
    ids = graph.node("Unsqueeze", [row, graph.vector(0)], output="input_ids")
    shape = graph.node("Shape", [ids])
    for name, value in (("attention_mask", 1), ("token_type_ids", 0)):
        filled = numpy_helper.from_array(np.array([value], np.int64))
        graph.node("ConstantOfShape", [shape], output=name, value=filled)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        graph.output(name, INT64, (1, "sequence"))
    return graph.model()
