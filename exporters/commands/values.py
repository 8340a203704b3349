"""What options take besides plain numbers."""

from __future__ import annotations

import argparse
import re

_MEGABYTES = {"": 1.0, "M": 1.0, "MB": 1.0, "MIB": 1.048576, "G": 1e3, "GB": 1e3, "GIB": 1073.741824}
_SIZE = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", re.IGNORECASE)


def megabytes(text: str) -> float:
    """MB of a size such as 80, 80MB or 1.5GB."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].upper() not in _MEGABYTES:
        raise argparse.ArgumentTypeError(f"{text} is no size; give MB, such as 80 or 80MB, or GB, such as 1.5GB")
    return float(found[1]) * _MEGABYTES[found[2].upper()]
