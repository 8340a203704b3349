"""The one taxonomy of errors, with the same names in Python, Kotlin and Swift.

A message names the thing, the limit and the next step. `exit_code` is what the command line returns:
1 when a check failed, 2 when the usage or the input was wrong, 130 after Ctrl-C.
"""

from __future__ import annotations


class MobileLlmError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 2


class ModelNotFound(MobileLlmError):
    """A model folder or bundle is not there, or lacks a file it cannot do without."""


class UnsupportedModel(MobileLlmError):
    """An architecture, task, format or operator that this version does not cover."""


class InvalidSpec(MobileLlmError):
    """What was asked for contradicts itself or cannot be done."""


class InvalidInput(MobileLlmError):
    """Data handed in (a file, a row, a text, a tensor) is not usable."""


class WrongTask(MobileLlmError):
    """The bundle answers another task than the one asked of it."""


class OutputExists(MobileLlmError):
    """The output path is taken; nothing of the user's is overwritten without `--force`."""


class IntegrityFailed(MobileLlmError):
    """A bundle's file is missing, truncated, altered, or points outside its folder."""

    exit_code = 1


class RuntimeTooOld(MobileLlmError):
    """The bundle needs a newer runtime than this one."""


class NotEnoughMemory(MobileLlmError):
    """Memory or disk does not hold what was asked for."""


class BackendUnavailable(MobileLlmError):
    """The runtime for this format is not installed, or does not exist on this system."""


class VerificationFailed(MobileLlmError):
    """An artifact differs from the model it came from by more than its limit."""

    exit_code = 1


class ContextFull(MobileLlmError):
    """The prompt and what was generated no longer fit the model's context."""


class Cancelled(MobileLlmError):
    """The caller cancelled the work, or pressed Ctrl-C."""

    exit_code = 130


class Busy(MobileLlmError):
    """One engine is one owner of native state; another thread is inside it."""
