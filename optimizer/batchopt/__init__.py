"""batchopt: which batch size, and which learning rate with it, should this Keras model be trained with here?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchopt.cli.study_script import run_script as run_script
    from batchopt.errors import BatchoptError as BatchoptError
    from batchopt.question.goal import Goal as Goal
    from batchopt.question.options import Budget as Budget
    from batchopt.question.options import Configuration as Configuration
    from batchopt.question.options import Options as Options
    from batchopt.question.space import SearchSpace as SearchSpace
    from batchopt.question.space import powers_of_two as powers_of_two
    from batchopt.question.task import Dataset as Dataset
    from batchopt.question.task import Task as Task
    from batchopt.report.answer.recommendation import Recommendation as Recommendation
    from batchopt.report.answer.recommendation import Report as Report
    from batchopt.report.show.study_report import read_report as read_report
    from batchopt.report.show.trackers import MLflow as MLflow
    from batchopt.report.show.trackers import TensorBoard as TensorBoard
    from batchopt.search.in_optuna.sampler import BatchSizeSampler as BatchSizeSampler
    from batchopt.signals import Interrupted as Interrupted
    from batchopt.study.study import Study as Study

_HOME = {
    "BatchSizeSampler": "batchopt.search.in_optuna.sampler",
    "BatchoptError": "batchopt.errors",
    "Budget": "batchopt.question.options",
    "Configuration": "batchopt.question.options",
    "Dataset": "batchopt.question.task",
    "Goal": "batchopt.question.goal",
    "Interrupted": "batchopt.signals",
    "MLflow": "batchopt.report.show.trackers",
    "Options": "batchopt.question.options",
    "Recommendation": "batchopt.report.answer.recommendation",
    "Report": "batchopt.report.answer.recommendation",
    "SearchSpace": "batchopt.question.space",
    "Study": "batchopt.study.study",
    "TensorBoard": "batchopt.report.show.trackers",
    "Task": "batchopt.question.task",
    "powers_of_two": "batchopt.question.space",
    "read_report": "batchopt.report.show.study_report",
    "run_script": "batchopt.cli.study_script",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import batchopt` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
