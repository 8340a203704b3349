"""The Trainer's progress, told to a meter, and its loss, written to a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
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


class LossLog(TrainerCallback):
    """One JSON line per step: `step`, `loss` (the mean over all processes), `learning_rate`. A continued run adds to
    what is there; another begins anew."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if state.global_step == 0:
            self._path.write_text("", encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        logs = values["logs"]
        if "loss" in logs:
            line = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs["learning_rate"]}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
