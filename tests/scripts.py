"""Scripts that tests run in processes of their own."""

from __future__ import annotations

import os
import sys


def findable() -> dict[str, str]:
    """An environment in which a process finds what this one does, modules beside tests and studies included."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
