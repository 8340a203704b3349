"""Fine-tuning: a pretrained model and labelled data in, a Hugging Face folder out that `export` takes."""

from exporters.finetuning.spec import FinetuneSpec

__all__ = ["FinetuneSpec"]
