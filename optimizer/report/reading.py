"""Reports and trials from a database alone: no TensorFlow, nothing written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna

from optimizer.errors import StorageError, StudyNotFound
from optimizer.report.recommendation import Report, by_batch_size, count_states, recommend
from optimizer.store.database import Database, open_database
from optimizer.store.history import TrialRecord, open_study, read_trials
from optimizer.store.ledger import ELAPSED
from optimizer.store.records import Records
from optimizer.store.stamp import ATTRIBUTE, Stamp


def read_report(storage: str, name: str | None = None) -> Report:
    """What a study has found.

    Args:
        storage: a path or an SQLAlchemy URL.
        name: of the study; may be None where the database holds only one.

    Raises:
        StorageError: there is no such database or study.
    """
    with _reading(storage) as database:
        study, stamp = _stamped(database, name or _only_study(database))
        records = Records(database.engine)
        trials = read_trials(study, records)
        machines = records.machines()
        last = next((trial.machine for trial in reversed(trials) if trial.machine), "")
        return Report(
            study=study.study_name,
            goal=stamp.goal.describe(),
            storage=database.url,
            machine=machines.get(last, {}),
            trials=count_states(trials),
            recommendation=recommend(trials),
            by_batch_size=by_batch_size(trials),
            elapsed_seconds=float(study.user_attrs.get(ELAPSED, 0.0)),
        )


def read_study(storage: str, name: str | None = None) -> list[TrialRecord]:
    """The trials of a study, by number; arguments and errors as `read_report`."""
    with _reading(storage) as database:
        study, _ = _stamped(database, name or _only_study(database))
        return read_trials(study, Records(database.engine))


def list_studies(storage: str) -> list[dict[str, Any]]:
    """The studies of a database that batchopt made, by name: `study`, `goal`, and counts of `trials` by state.

    Raises:
        StorageError: there is no such database.
    """
    with _reading(storage) as database:
        found = []
        for name in _study_names(database):
            study, stamp = _stamped(database, name)
            trials = count_states(read_trials(study, Records(database.engine)))
            found.append({"study": name, "goal": stamp.goal.describe(), "trials": trials})
        return found


@contextmanager
def _reading(storage: str) -> Iterator[Database]:
    database = open_database(storage, create=False)
    try:
        yield database
    finally:
        database.engine.dispose()


def _stamped(database: Database, name: str) -> tuple[optuna.Study, Stamp]:
    study = open_study(database, name)
    stamp = Stamp.read(study)
    if stamp is None:
        raise StorageError(f"study {name!r} in {database.url} was not made by batchopt.")
    return study, stamp


def _study_names(database: Database) -> list[str]:
    """The studies that batchopt made; others may live in the same database."""
    summaries = optuna.get_all_study_summaries(database.storage, include_best_trial=False)
    return sorted(summary.study_name for summary in summaries if ATTRIBUTE in summary.user_attrs)


def _only_study(database: Database) -> str:
    names = _study_names(database)
    if len(names) == 1:
        return names[0]
    if not names:
        raise StudyNotFound(f"database {database.url} holds no study.")
    raise StudyNotFound(f"{database.url} holds several studies; choose one of {', '.join(names)} with --study.")
