"""Writes every golden file anew: python -m tests.golden"""

from __future__ import annotations

from .files import FOLDER, contents

for name, text in contents().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
