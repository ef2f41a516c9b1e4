"""One thread for linear algebra: the matrices are small, and the cores belong to training.

Where a training process keeps all cores busy, threads of the linear algebra library wait for each other: a decision
that takes 30 ms on one thread was seen to take 400 ms on two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@functools.cache
def _controller() -> ThreadpoolController:
    """What limits the libraries that are loaded."""
    # Linear algebra must be loaded before it can be found.
    import_module("scipy.linalg")
    return ThreadpoolController()


def on_one_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The same function, its linear algebra on one thread while it runs."""

    @functools.wraps(function)
    def limited(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
