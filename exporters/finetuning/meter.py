"""The Trainer's progress, told to a meter."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from exporters.progress import Meter


class MeterCallback(TrainerCallback):
    """Reports each optimizer step, and the metric after an epoch that measured it."""

    def __init__(self, meter: Meter, metric: str) -> None:
        self._meter = meter
        self._metric = metric
        self._measured = ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The last step of an epoch still belongs to it.
        epoch = max(1, math.ceil(state.epoch - 1e-9))
        step = f"training, epoch {epoch}/{int(args.num_train_epochs)}{self._measured}"
        self._meter(step, state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        self._measured = f", {self._metric} {values['metrics'][f'eval_{self._metric}']:.3f}"
