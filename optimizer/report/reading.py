"""Reports and trials from a database alone: no TensorFlow, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna

from optimizer.errors import StorageError, StudyNotFound
from optimizer.report.confirmation import confirmation
from optimizer.report.evidence import Evidence
from optimizer.report.goals import answered_goal, front, time_answer
from optimizer.report.machines import Place, chosen, machines_of, names_of, place_of
from optimizer.report.noise import gradient_noise
from optimizer.report.recommendation import MachineAdvice, Report, advise_from, by_batch_size, count_states, recommend
from optimizer.report.targets import to_target
from optimizer.search.space import SearchSpace
from optimizer.store.confirmations import Confirmations
from optimizer.store.database import Database, open_database
from optimizer.store.history import TrialRecord, open_study, read_trials
from optimizer.store.ledger import ELAPSED, ENGINES
from optimizer.store.records import Records
from optimizer.store.stamp import ATTRIBUTE, Stamp
from optimizer.training.task import Goal, GoalKind


def read_report(
    storage: str,
    name: str | None = None,
    on: str | None = None,
    *,
    tolerance: float | None = None,
    target: float | None = None,
    goal: GoalKind | None = None,
) -> Report:
    """What a study has found, for one of its machines.

    Args:
        storage: a path or an SQLAlchemy URL.
        name: of the study; may be None where the database holds only one.
        on: the machine: the beginning of its fingerprint, or a part of its name. This one where None, if it is in the
            study, or else the study's first.
        tolerance: accuracy that counts as equally good, in 0 to 1; None for one standard error.
        target: the accuracy that times are told to, in 0 to 1; None for the goal's, or one that half of the batch sizes
            reached.
        goal: what is asked for; the study's own where None.

    Raises:
        StorageError: there is no such database or study.
        InvalidInput: `on` is none of the study's machines, or several; or `goal` lacks a target.
    """
    return read_evidence(storage, name, on, tolerance=tolerance, target=target, goal=goal).report


def read_evidence(
    storage: str,
    name: str | None = None,
    on: str | None = None,
    *,
    tolerance: float | None = None,
    target: float | None = None,
    goal: GoalKind | None = None,
) -> Evidence:
    """A report with all that its pictures are made of; arguments and errors as `read_report`."""
    with _reading(storage) as database:
        study, stamp = _stamped(database, name or _only_study(database))
        asked = answered_goal(stamp.goal, goal, target)
        records = Records(database.engine)
        trials = read_trials(study, records)
        engines, described = study.user_attrs.get(ENGINES, {}), records.machines()
        machines = {key: described.get(key, {}) for key in machines_of(trials, engines)}
        names = names_of(machines)
        here = chosen(on, machines, names) if machines else ""
        there, on_each, largest = trials, [], None
        if len(machines) > 1:
            places = {
                key: place_of(key, engine=database.engine, stamp=stamp, trials=trials, engines=engines, names=names)
                for key in machines
            }
            there, largest = places[here].trials(trials), places[here].max_batch_size
            on_each = [_on(place, trials, stamp.space, asked, tolerance) for place in places.values()]
        advice, in_time = None, None
        if asked.kind == "time":
            in_time = time_answer(there, stamp.space, asked, max_batch_size=largest)
        else:
            advice = advise_from(
                there, stamp.space, max_epochs=asked.epochs, tolerance=tolerance, max_batch_size=largest
            )
        advised = None if advice is None else recommend(there, advice)
        report = Report(
            study=study.study_name,
            goal=asked.describe(),
            storage=database.url,
            machine=machines.get(here, {}),
            machines=on_each,
            trials=count_states(trials),
            recommendation=advised,
            advice=advice,
            by_batch_size=by_batch_size(there),
            elapsed_seconds=float(study.user_attrs.get(ELAPSED, 0.0)),
            to_target=to_target(there, asked.target if target is None else target),
            gradient_noise=gradient_noise(trials),
            confirmation=confirmation(Confirmations(database.engine, study._study_id).all(), advised),
            time=in_time,
            front=front(advice) if asked.kind == "pareto" else [],
        )
        return Evidence(report, there, stamp.space)


def _on(
    place: Place, trials: Sequence[TrialRecord], space: SearchSpace, goal: Goal, tolerance: float | None
) -> MachineAdvice:
    """What is best on one of several machines."""
    there, largest = place.trials(trials), place.max_batch_size
    if goal.kind == "time":
        in_time = time_answer(there, space, goal, max_batch_size=largest).advice
        soonest = in_time.best if in_time else None
        return MachineAdvice(
            fingerprint=place.fingerprint,
            name=place.name,
            batch_size=soonest.batch_size if soonest else None,
            learning_rate=soonest.learning_rate if soonest else None,
            train_seconds=soonest.mean if soonest and place.seconds_per_epoch else None,
            fastest=soonest.batch_size if soonest and place.seconds_per_epoch else None,
            max_batch_size=largest,
        )
    advice = advise_from(there, space, max_epochs=goal.epochs, tolerance=tolerance, max_batch_size=largest)
    best = recommend(there, advice)
    return MachineAdvice(
        fingerprint=place.fingerprint,
        name=place.name,
        batch_size=best.batch_size if best else None,
        learning_rate=best.learning_rate if best else None,
        train_seconds=best.train_seconds if best and place.seconds_per_epoch else None,
        fastest=advice.fastest.batch_size if best and advice and place.seconds_per_epoch else None,
        max_batch_size=largest,
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
