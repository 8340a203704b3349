"""Named tensors in, named tensors out: a model that came in as a plain module, with no text around it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobile_llm.bundle.manifest import EntryPoint, TensorBinding
from mobile_llm.engine import Engine
from mobile_llm.errors import IntegrityFailed, InvalidInput

ROLE = "run"
_BATCH = "batch"


class TensorModel:
    """A model over one engine. `inputs` and `outputs` are the names, types and shapes of its tensors."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        entries = engine.artifact.entry_points.get(ROLE, ())
        if len(entries) != 1:
            raise IntegrityFailed(f"{engine.artifact_id} has no single entry point {ROLE!r}; export the bundle again")
        self._entry = entries[0]
        self._largest = largest_batch(self._entry)

    @property
    def inputs(self) -> Mapping[str, TensorBinding]:
        return self._entry.inputs

    @property
    def outputs(self) -> Mapping[str, TensorBinding]:
        return self._entry.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer arrays by name with arrays by name. Any batch size is taken where the model allows it: an artifact
        that is fixed to one row goes row by row. Raises InvalidInput for what does not fit."""
        if set(inputs) != set(self.inputs):
            raise InvalidInput(f"this model takes {', '.join(self.inputs)}, not {', '.join(inputs) or 'nothing'}")
        arrays = {name: np.asarray(inputs[name]) for name in self.inputs}
        for name, array in arrays.items():
            _check(name, array, self.inputs[name], self._largest)
        if self._largest and len({len(array) for array in arrays.values()}) != 1:
            sizes = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise InvalidInput(f"the inputs have different numbers of rows: {sizes}")
        return self.engine.run_tensors(ROLE, arrays, self._largest)

    def close(self) -> None:
        self.engine.close()


def largest_batch(entry: EntryPoint) -> int | None:
    """How many rows go in at once; None where the first dimension of a tensor is not a batch."""
    bindings = [*entry.inputs.values(), *entry.outputs.values()]
    if all(binding.shape[:1] == (_BATCH,) for binding in bindings):
        return min(binding.range[_BATCH][1] for binding in entry.inputs.values())
    return 1 if all(binding.shape[:1] == (1,) for binding in bindings) else None


def _check(name: str, array: np.ndarray, binding: TensorBinding, largest: int | None) -> None:
    integral = array.dtype.kind in "iub"
    if array.dtype.kind not in "iubf" or (binding.dtype.startswith("int") and not integral):
        raise InvalidInput(f"{name} should be {binding.dtype}, not {array.dtype}")
    wanted = binding.shape[1:] if largest else binding.shape
    given = array.shape[1:] if largest else array.shape
    if given != wanted or (largest and not len(array)):
        shape = [_BATCH, *wanted] if largest else list(wanted)
        raise InvalidInput(f"{name} should have the shape {shape}, not {list(array.shape)}")


ENGINE = Engine


def open_task(engine: Engine) -> TensorModel:
    return TensorModel(engine)
