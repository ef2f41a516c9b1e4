"""What to try next: arrays in, arrays out; no TensorFlow, no database."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchopt.question.space import SearchSpace as SearchSpace
    from batchopt.search.advice import Recommendation as Recommendation
    from batchopt.search.in_optuna.sampler import BatchSizeSampler as BatchSizeSampler
    from batchopt.search.scheduler import Scheduler as Scheduler
    from batchopt.search.steps import Step as Step

_PLACES = {
    "BatchSizeSampler": "batchopt.search.in_optuna.sampler",
    "Recommendation": "batchopt.search.advice",
    "Scheduler": "batchopt.search.scheduler",
    "SearchSpace": "batchopt.question.space",
    "Step": "batchopt.search.steps",
}

__all__ = ["BatchSizeSampler", "Recommendation", "Scheduler", "SearchSpace", "Step"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
