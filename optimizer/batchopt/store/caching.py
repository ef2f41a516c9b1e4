"""Optuna's view of a study's trials, read again only where something has changed.

Optuna keeps the trials that have ended in memory and reads all others at each look. A study that puts trials aside has
hundreds of those, each some rows in five tables, and looks several times at each decision.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from batchopt.optuna_private import TrialCache, trial_id_of
from batchopt.store.tables import optunas_children, optunas_trials
from batchopt.store.trial_rows import stored_trials

Sign = tuple[Any, ...]
"""A trial's state, and how many rows it has in each table: what tells that it has changed."""


class Caching(TrialCache):
    """Optuna's cache, which knows an unfinished trial that is as it was.

    A value that is written in the place of another, as only user attributes are here, goes unnoticed: who needs the
    newest asks the database for that trial. Where another Optuna does not call what is overridden here, all unfinished
    trials are read again, as it always did.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._signs: dict[int, dict[int, Sign]] = {}
        self._newest: dict[int, int] = {}

    def refresh(self, study_id: int) -> None:
        with self.lock:
            known, newest = self._signs.get(study_id, {}), self._newest.get(study_id, -1)
            # Read before the trials: what changes in between is read once more the next time.
            signs = self._read_signs(study_id, newest)
            changed = {trial_id for trial_id, sign in known.items() if signs.get(trial_id) != sign}
            if newest >= 0 and not changed and signs.keys() <= known.keys():
                return
            trials = self.read(study_id, changed, newest)
            finished = {trial_id_of(trial) for trial in trials if trial.state.is_finished()}
            self._newest[study_id] = max([newest, *map(trial_id_of, trials)])
            # One that was begun since the signs were read has none, and is read again.
            begun: dict[int, Sign] = dict.fromkeys(map(trial_id_of, trials), ())
            self._signs[study_id] = {id_: sign for id_, sign in (begun | signs).items() if id_ not in finished}

    def trials_of(self, study_id: int, trial_ids: set[int], newest: int) -> list[FrozenTrial]:
        with self.engine.connect() as connection:
            return stored_trials(connection, study_id, trial_ids, newest)

    def _read_signs(self, study_id: int, newest: int) -> dict[int, Sign]:
        """Of the unfinished trials, and of those that are new, by trial id."""
        trials = optunas_trials
        counts = [
            sa.select(sa.func.count()).where(table.c.trial_id == trials.c.trial_id).scalar_subquery()
            for table in optunas_children
        ]
        unfinished = sa.or_(trials.c.trial_id > newest, trials.c.state.in_(["RUNNING", "WAITING"]))
        query = sa.select(trials.c.trial_id, trials.c.state, *counts).where(trials.c.study_id == study_id, unfinished)
        with self.engine.connect() as connection:
            return {row[0]: tuple(row[1:]) for row in connection.execute(query)}
