"""The model to be trained: a fresh head on a pretrained encoder, whole or behind an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.finetuning.spec import FinetuneSpec
from exporters.finetuning.tasks import task_of
from exporters.sources.quiet import quiet
from mobile_llm.errors import UnsupportedModel


def load_model(folder: Path, labels: Sequence[str], text_pairs: bool, spec: FinetuneSpec) -> Any:
    """A classifier with one logit per label, whose config says what they mean and whether it takes pairs. Raises
    UnsupportedModel for what transformers cannot load."""
    import torch
    import transformers

    task = task_of(spec)
    torch.manual_seed(spec.seed)  # the head is random
    try:
        with quiet():
            model = getattr(transformers, task.model).from_pretrained(
                folder,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: i for i, label in enumerate(labels)},
                problem_type=task.problem_type,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                local_files_only=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedModel(f"transformers cannot load {folder} for {spec.task}: {reason}") from None
    if text_pairs or hasattr(model.config, "text_pairs"):
        model.config.text_pairs = text_pairs
    return _with_adapter(model, spec) if spec.method == "lora" else model


def _with_adapter(model: Any, spec: FinetuneSpec) -> Any:
    """LoRA on every linear layer of the encoder (Hu et al., arXiv:2106.09685); the head is trained whole."""
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        task_type=TaskType[task_of(spec).adapter],
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        lora_dropout=0.05,
        target_modules="all-linear",
    )
    return get_peft_model(model, settings)


def has_accelerator() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())


def bfloat16_helps() -> bool:
    """Whether this machine multiplies in bfloat16 by itself: a GPU of today, or a CPU with AMX. Elsewhere it is
    emulated and slower than float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(supported())
