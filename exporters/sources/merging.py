"""Adapters merged into the model they were trained on, by peft.

Whether an adapter fits is found out before weights are loaded: peft is given the model's skeleton, whose tensors have
shapes and no values, and says which tensors it would expect. After merging the model must answer as it did with the
adapter beside it, which it does not where two layers share the weights that are adapted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporters.sources.adapters import Adapter
from exporters.sources.quiet import quiet
from mobile_llm.errors import InvalidInput, UnsupportedModel

_LIMIT = 1e-3  # of the largest output; float32 sums in another order differ by 1e-6 of it, another function by more
_SHOWN = 3


def check_fits(adapter: Adapter, make_skeleton: Callable[[], Any]) -> None:
    """Raises InvalidInput for an adapter of another model."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    with quiet(), torch.device("meta"):
        skeleton = make_skeleton()
        try:
            adapted = get_peft_model(skeleton, _config(adapter))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise InvalidInput(
                f"{adapter.folder} does not fit the model ({str(error).splitlines()[0]}); pass the one it was made for"
            ) from None
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    _compare(adapter, {name: tuple(value.shape) for name, value in state.items()})


def merge(model: Any, adapter: Adapter) -> Any:
    """The model with the adapter inside, in eval mode. Raises UnsupportedModel where that is another function,
    InvalidInput for an adapter that holds what is no number."""
    from peft import PeftModel

    with quiet():
        adapted = PeftModel.from_pretrained(model, str(adapter.folder), torch_device="cpu").eval()
        expected = _answer(adapted)
        try:
            merged = adapted.merge_and_unload(safe_merge=True).eval()
        except ValueError as error:
            raise InvalidInput(f"{adapter.folder} cannot be merged ({error}); fetch the adapter again") from None
    difference = float((_answer(merged) - expected).abs().max() / expected.abs().max())
    if not difference <= _LIMIT:
        raise UnsupportedModel(
            f"{adapter.folder} merged is not what it was beside the model (answers differ by {difference:.1e} of the "
            "largest): it adapts weights that two layers share; train it without them"
        )
    return merged


def _config(adapter: Adapter) -> Any:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(adapter.folder))
    config.inference_mode = True
    return config


def _compare(adapter: Adapter, expected: dict[str, tuple[int, ...]]) -> None:
    found = dict(adapter.shapes)
    strange = sorted(name for name in found if name not in expected)
    missing = sorted(name for name in expected if name not in found)
    if strange or missing:
        listed = ", ".join((strange or missing)[:_SHOWN])
        what = "has tensors that the model has no place for" if strange else "lacks tensors for its target modules"
        raise InvalidInput(f"{adapter.folder} {what} ({listed}); pass the model that it was made for")
    for name, shape in expected.items():
        if found[name] != shape:
            raise InvalidInput(
                f"{adapter.folder} has {name} of shape {found[name]}, and for this model it would be {shape}; pass the "
                "model that it was made for"
            )


def _answer(model: Any) -> Any:
    """Of a few tokens: logits, or hidden states where there is no head."""
    import torch

    ids = torch.arange(1, 9)[None] % model.config.vocab_size
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
