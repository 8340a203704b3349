"""Which rows make up a batch: rows of like length, in an order that the seed and the epoch alone decide.

transformers' own length-grouped sampler draws from the global generator. Processes whose dropout has drawn different
amounts from theirs would then disagree on the order, and train some rows twice and others never. Here every process
knows the same order, made for the batch of all of them together; accelerate deals it out in turns. So N processes with
batches of B see in each step what one process with batches of N x B sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthBuckets(Sampler[int]):
    """`together` is how many rows a step takes in all."""

    def __init__(self, lengths: Sequence[int], together: int, seed: int) -> None:
        self._lengths, self._together, self._seed = list(lengths), together, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Told by the data loader; a resumed run goes on with the epoch it was in."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._together, generator=generator))


class BucketTrainer(Trainer):
    """A Trainer with that sampler, and with the mean loss of a step whatever it is split into.

    transformers takes a model with open keyword arguments to divide by the number of items in the step, and so leaves
    out its own division by accumulated batches and multiplies by the processes. A classifier's loss is the mean of its
    batch all the same: the loss would be as many times too large.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthBuckets([len(row["input_ids"]) for row in rows], together, self.args.seed)
