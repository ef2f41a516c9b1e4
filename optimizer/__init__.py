"""batchopt: which batch size, and which learning rate with it, should this Keras model be trained with here?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizer.cli import run_script as run_script
    from optimizer.errors import BatchoptError as BatchoptError
    from optimizer.options import Budget as Budget
    from optimizer.options import Configuration as Configuration
    from optimizer.options import Options as Options
    from optimizer.report.reading import read_report as read_report
    from optimizer.report.recommendation import Recommendation as Recommendation
    from optimizer.report.recommendation import Report as Report
    from optimizer.search.space import SearchSpace as SearchSpace
    from optimizer.search.space import powers_of_two as powers_of_two
    from optimizer.study import Study as Study
    from optimizer.training.task import Dataset as Dataset
    from optimizer.training.task import Goal as Goal
    from optimizer.training.task import Task as Task

_HOME = {
    "BatchoptError": "optimizer.errors",
    "Budget": "optimizer.options",
    "Configuration": "optimizer.options",
    "Dataset": "optimizer.training.task",
    "Goal": "optimizer.training.task",
    "Options": "optimizer.options",
    "Recommendation": "optimizer.report.recommendation",
    "Report": "optimizer.report.recommendation",
    "SearchSpace": "optimizer.search.space",
    "Study": "optimizer.study",
    "Task": "optimizer.training.task",
    "powers_of_two": "optimizer.search.space",
    "read_report": "optimizer.report.reading",
    "run_script": "optimizer.cli",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import optimizer` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
