"""Every name of Optuna's, and of its dashboard's, that is not public: what a new version may change is mended here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._cached_storage import _StudyInfo
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import FrozenTrial

OPTUNAS_TABLES: Mapping[str, sa.Table] = models.BaseModel.metadata.tables
"""Optuna's own tables, by name, as it would make them."""


def study_id_of(study: Study) -> int:
    """The id of a study in its database."""
    return study._study_id


def trial_id_of(trial: FrozenTrial) -> int:
    """The id of a trial in its database, which is not its number."""
    return trial._trial_id


def storage_of(study: Study) -> BaseStorage:
    """Where a study keeps its trials."""
    return study._storage


def stored_value(trial_id: int, step: int, value: float) -> dict[str, object]:
    """An intermediate value as a row of Optuna's table; any float, NaN and infinity included."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def stored_objective(trial_id: int, objective: int, value: float) -> dict[str, object]:
    """A final value of a trial, the one of an objective, as a row of Optuna's table."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def constraint_key(name: str) -> str:
    """The system attribute of a trial that holds the constraint of a name."""
    return f"constraints:{name}"


value_of: Callable[[float | None, Any], float] = models.TrialValueModel.stored_repr_to_value
"""A final value from its row, and what kind the row says it is of."""

intermediate_value_of: Callable[[float | None, Any], float] = (
    models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
)
"""The same of an intermediate value."""


def figure_attribute(figure: str) -> str:
    """How the system attributes of a study begin that hold a figure of optuna-dashboard's, cut into parts."""
    # It brings a web server along, which nothing else needs.
    from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA

    return f"{SYSTEM_ATTR_PLOT_DATA}{figure}:"


class TrialCache(_CachedStorage):
    """Optuna's cache of trials, with what it reads, and when, left to `refresh`."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)

    @property
    def engine(self) -> sa.Engine:
        """Of the database behind the cache."""
        return self._backend.engine

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever looks at the cache or changes it."""
        return self._lock

    def refresh(self, study_id: int) -> None:
        """Bring the trials of a study up to date; called before each look at them."""
        super()._read_trials_from_remote_storage(study_id)

    def trials_of(self, study_id: int, trial_ids: set[int], newest: int) -> list[FrozenTrial]:
        """These trials, and those above the id `newest`, as the database has them."""
        trials: list[FrozenTrial] = self._backend._get_trials(study_id, None, trial_ids, newest)
        return trials

    def read(self, study_id: int, trial_ids: Iterable[int], newest: int) -> list[FrozenTrial]:
        """Read these trials, and those above the id `newest`, into the cache; the lock is held."""
        study = self._studies.setdefault(study_id, _StudyInfo())
        trials = self.trials_of(study_id, set(trial_ids), newest)
        self._add_trials_to_cache(study_id, trials)
        for trial in trials:
            if trial.state.is_finished():
                study.unfinished_trial_ids.discard(trial._trial_id)
                study.last_finished_trial_id = max(study.last_finished_trial_id, trial._trial_id)
            else:
                study.unfinished_trial_ids.add(trial._trial_id)
        return trials

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        self.refresh(study_id)
