"""What an export gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporters.verification.rows import Row
from mobile_llm.bundle import Artifact


@dataclass(frozen=True)
class ExportResult:
    """The bundle that now exists, and everything that was compared for it."""

    bundle: Path
    artifacts: dict[str, Artifact]
    rows: tuple[Row, ...]
