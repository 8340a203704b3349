"""How far a model's distribution of the next token moves with its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.held import holding


def divergence(torch_model: Any, quantized: DecoderModel, ids: np.ndarray) -> float:
    """Of the torch model with these weights from itself as it is: Kullback and Leibler's, in nats per token, over
    windows int64 (count, length)."""
    import torch
    from torch.nn.functional import kl_div

    total = 0.0
    with torch.inference_mode():
        for window in torch.from_numpy(ids)[:, None]:
            expected = _chances(torch_model, window)
            with holding(torch_model, quantized):
                given = _chances(torch_model, window)
            total += float(kl_div(given, expected, log_target=True, reduction="batchmean"))
    return total / len(ids)


def _chances(torch_model: Any, ids: Any) -> Any:
    return torch_model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
