"""What to try next: arrays in, arrays out; no TensorFlow, no database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.search.advice import Recommendation as Recommendation
    from optimizer.search.sampler import BatchSizeSampler as BatchSizeSampler
    from optimizer.search.scheduler import Scheduler as Scheduler
    from optimizer.search.space import SearchSpace as SearchSpace
    from optimizer.search.steps import Step as Step

_PLACES = {
    "BatchSizeSampler": "optimizer.search.sampler",
    "Recommendation": "optimizer.search.advice",
    "Scheduler": "optimizer.search.scheduler",
    "SearchSpace": "optimizer.search.space",
    "Step": "optimizer.search.steps",
}

__all__ = ["BatchSizeSampler", "Recommendation", "Scheduler", "SearchSpace", "Step"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
