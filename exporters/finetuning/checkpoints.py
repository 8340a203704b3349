"""The state after each epoch, beside the output until the result is safe, so that an interrupted run can go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from exporters.finetuning import processes
from exporters.finetuning.spec import FinetuneSpec
from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import Cancelled, InvalidInput, InvalidSpec, OutputExists

STATE = "finetune.json"
# The Trainer writes this last: a checkpoint without it was cut short.
_LAST_WRITTEN = "trainer_state.json"
# These may change between a run and its continuation.
_MAY_CHANGE = {"resume", "force", "output", "log"}


@contextmanager
def kept_checkpoints(spec: FinetuneSpec) -> Iterator[None]:
    """Kept while the block runs, and after it where it failed with an epoch behind it.

    Raises OutputExists, InvalidSpec for what an earlier run, or somebody else, left there; Cancelled on Ctrl-C.
    """
    _prepare(spec)
    try:
        yield
    except BaseException as error:
        _drop_unfinished(spec)
        if last_checkpoint(spec) is None:
            shutil.rmtree(spec.checkpoints, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise Cancelled(f"cancelled; the finished epochs are in {spec.checkpoints}, go on with --resume") from None
        raise
    shutil.rmtree(spec.checkpoints, ignore_errors=True)


def last_checkpoint(spec: FinetuneSpec) -> str | None:
    """The newest finished checkpoint; None where the run was stopped before its first epoch ended."""
    found = [path for path in spec.checkpoints.glob("checkpoint-*") if _finished(path)]
    return str(max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if found else None


def _finished(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / _LAST_WRITTEN)
    except InvalidInput:
        return False
    return True


def _drop_unfinished(spec: FinetuneSpec) -> None:
    for path in spec.checkpoints.glob("checkpoint-*"):
        if not _finished(path):
            shutil.rmtree(path, ignore_errors=True)


def _prepare(spec: FinetuneSpec) -> None:
    """Refuse what an earlier run left, or check that it belongs to the same spec."""
    if not spec.checkpoints.exists():
        if spec.resume:
            raise InvalidSpec(f"there is nothing to resume: {spec.checkpoints} does not exist; leave out --resume")
        spec.checkpoints.mkdir(parents=True)
        (spec.checkpoints / STATE).write_text(json.dumps(_settings(spec), indent=2), encoding="utf-8")
        return
    if not (spec.checkpoints / STATE).is_file():
        raise OutputExists(f"{spec.checkpoints} holds no {STATE}, so it is not ours to use; choose another output")
    if spec.resume:
        _refuse_other_settings(spec)
        _drop_unfinished(spec)
    elif spec.force:
        shutil.rmtree(spec.checkpoints)
        _prepare(spec)
    else:
        raise OutputExists(
            f"{spec.checkpoints} holds an unfinished run; continue it with --resume, or start anew with --force"
        )


def _refuse_other_settings(spec: FinetuneSpec) -> None:
    wanted, found = _settings(spec), read_json(spec.checkpoints / STATE)
    if found != wanted:
        known = found if isinstance(found, dict) else {}
        names = sorted(wanted.keys() | known.keys())
        differing = ", ".join(name for name in names if known.get(name) != wanted.get(name))
        raise InvalidSpec(f"{spec.checkpoints} is of a run with other settings ({differing}); use the same ones")


def _settings(spec: FinetuneSpec) -> dict[str, str]:
    together = {"processes": str(processes.count())} if processes.count() > 1 else {}
    return {name: str(value) for name, value in asdict(spec).items() if name not in _MAY_CHANGE} | together
