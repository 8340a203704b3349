"""A user's plain text, as one string."""

from __future__ import annotations

from pathlib import Path

from mobile_llm.errors import InvalidInput


def read_text(path: str) -> str:
    """Raises InvalidInput for what is not there or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); give a text file in UTF-8") from None
