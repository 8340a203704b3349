"""coremltools without what it brings along: on import it would load TensorFlow and scikit-learn wherever they are
installed (seconds, half a gigabyte), warn of versions it was not tested with, and draw bars while converting."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_NEEDED = ("tensorflow", "sklearn")


def load_coremltools() -> None:
    """Import coremltools once, before any module that imports it at its top."""
    if "coremltools" in sys.modules:
        return
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None means "not to be found"
    logging.disable(logging.WARNING)
    try:
        import coremltools  # noqa: F401
    finally:
        logging.disable(logging.NOTSET)
        for name in hidden:
            del sys.modules[name]


def forget_names() -> None:
    """Names count from 0 again. Converting does that at its end, which an export that was interrupted never reached."""
    from coremltools.converters.mil import Builder

    Builder.name_count.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs coremltools neither draws bars nor logs remarks; errors still raise."""
    from coremltools.converters.mil.mil.passes import pass_pipeline

    log = logging.getLogger("coremltools")
    level, bar = log.level, pass_pipeline.tqdm
    log.setLevel(logging.ERROR)
    pass_pipeline.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        log.setLevel(level)
        pass_pipeline.tqdm = bar
