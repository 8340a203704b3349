"""The Trainer's progress, told to a meter."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from exporters.progress import Meter


class MeterCallback(TrainerCallback):
    """Reports each optimizer step, and the accuracy after an epoch that measured it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._measured = ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epoch = min(int(state.epoch) + 1, args.num_train_epochs)
        step = f"training, epoch {epoch}/{args.num_train_epochs}{self._measured}"
        self._meter(step, state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        self._measured = f", accuracy {values['metrics']['eval_accuracy']:.3f}"
