"""Loading without transformers' chatter, or that of packages it looks into (torchao, which the converter of modules
brings): what matters in it (missing weights) is checked by us."""

from __future__ import annotations

import logging as standard
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no progress bars and no load reports while the block runs."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    standard.disable(standard.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        standard.disable(standard.NOTSET)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
