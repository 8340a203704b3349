"""What the routes of one server share."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mobile_llm.serving.desk import Desk
from mobile_llm.serving.errors import Refused
from mobile_llm.serving.metrics import Metrics
from mobile_llm.serving.settings import Settings


@dataclass(frozen=True)
class Server:
    """A loaded model (ChatModel or Embedder), whose requests it takes one by one."""

    model: Any
    settings: Settings
    desk: Desk
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        """The model's name, which is that of the bundle's folder."""
        return str(self.model.engine.bundle.folder.resolve().name)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the artifact's bytes."""
        hashes = "".join(file.sha256 for file in self.model.engine.artifact.files)
        return f"fp_{hashlib.sha256(hashes.encode()).hexdigest()[:12]}"

    def check_model(self, name: str | None) -> None:
        """Raises Refused for a model that is not this one; a request may leave it out."""
        if name is not None and name != self.id:
            raise Refused(404, f"there is no model {name!r} here; there is {self.id!r}", "model_not_found")
