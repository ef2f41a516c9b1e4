"""Large imports without the garbage collector, which finds nothing in them and takes a fifth of their time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Collect nothing within; what was made there stays for good and is never looked at again.

    The import of TensorFlow makes some half a million objects. That later collections pass them over also spares
    training the pauses of looking at them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
