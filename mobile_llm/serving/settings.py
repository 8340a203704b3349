"""What a server is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mobile_llm.errors import InvalidInput, InvalidSpec

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_KEY_VARIABLE = "MOBILE_LLM_API_KEY"


@dataclass(frozen=True)
class Settings:
    """`body_limit` is in bytes. `queue` is how many requests wait at most while one is answered. `describe_tools` tells
    models whose template knows no tools about them in words of ours. Raises InvalidSpec for a server that others could
    reach without a key."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    body_limit: int = 4_000_000
    queue: int = 8
    describe_tools: bool = False

    def __post_init__(self) -> None:
        if not self.loopback and self.api_key is None:
            raise InvalidSpec(
                f"others can reach {self.host}, so it needs a key: pass --api-key-file, or set {_KEY_VARIABLE}; "
                "without --host only this machine is served"
            )
        if not 0 <= self.port <= 65535:
            raise InvalidSpec(f"--port is {self.port}; it lies between 0 (any that is free) and 65535")
        if self.body_limit < 1:
            raise InvalidSpec(f"a body of {self.body_limit} bytes says nothing; --body-mb is at least 1")
        if self.queue < 0:
            raise InvalidSpec(f"--queue is {self.queue}; with 0 nobody waits")

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in _LOOPBACK

    def is_own_name(self, host: str) -> bool:
        """Whether a Host header names this machine. A page whose name was made to point here after it was loaded
        (DNS rebinding) sends its own name."""
        try:
            return urlsplit(f"//{host}").hostname in _LOOPBACK
        except ValueError:
            return False


def read_key(file: str | None, environment: Mapping[str, str]) -> str | None:
    """The key of a file, else of the environment; None for none. Raises InvalidInput for an empty one, or one that is
    not ASCII, which no header carries."""
    text = environment.get(_KEY_VARIABLE)
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the key file {file} cannot be read: {error}") from None
    if text is None:
        return None
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidInput(f"the key of {file or _KEY_VARIABLE} is empty or not one word of ASCII; write another")
    return key
