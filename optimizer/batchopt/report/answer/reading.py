"""Reports and trials from a database alone: no TensorFlow, nothing written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import optuna

from batchopt.errors import InvalidInput, StorageError, StudyNotFound
from batchopt.optuna_private import study_id_of
from batchopt.question.goal import Counts, Goal, GoalKind
from batchopt.question.space import SearchSpace
from batchopt.report.answer.batch_sizes import by_batch_size, count_states
from batchopt.report.answer.confirmation import confirmation
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.goals import TimeAnswer, front, time_answer
from batchopt.report.answer.noise import gradient_noise
from batchopt.report.answer.notes import notes
from batchopt.report.answer.places import Place, chosen, is_this, machines_of, names_of, place_of
from batchopt.report.answer.recommendation import MachineAdvice, Report, advise_from, compared, recommend
from batchopt.report.answer.targets import fastest_by_laws, to_target
from batchopt.store.access import opened
from batchopt.store.attributes import ATTRIBUTE, ELAPSED, ENGINES, MEMORY_LIMITS
from batchopt.store.confirmations import Confirmations
from batchopt.store.database import Database
from batchopt.store.history import TrialRecord, open_study, read_trials
from batchopt.store.measurements import Measurements
from batchopt.store.records import Records
from batchopt.store.stamp import Stamp
from batchopt.text import printable

if TYPE_CHECKING:
    from batchopt.search.advice import Advice


NOWHERE = Place("", "", None, None)
"""Where a study was that no machine has joined."""


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
        InvalidInput: `on` is none of the study's machines, or several; `goal` lacks a target; a number that is none.
    """
    return read_evidence(storage, name, on, tolerance=tolerance, target=target, goal=goal).report


def read_evidence(
    storage: str | Database,
    name: str | None = None,
    on: str | None = None,
    *,
    tolerance: float | None = None,
    target: float | None = None,
    goal: GoalKind | None = None,
) -> Evidence:
    """A report with all that its pictures are made of; arguments and errors as `read_report`.

    What a database that is open already refuses is raised as it is, and may pass.
    """
    for option, value in (("--tolerance", tolerance), ("--target", target)):
        if value is not None and not math.isfinite(value):
            raise InvalidInput(f"{option} {value}: give a number.")
    with _reading(storage) as database:
        study, stamp = _stamped(database, name or _only_study(database))
        asked = stamp.goal.changed(goal, target if (goal or stamp.goal.kind) == "time" else None)
        in_seconds = asked.kind == "time"
        # Where a target ended trials, their last epoch is not what they would have come to.
        counts = asked.value if stamp.goal.target is None else None
        records = Records(database.db)
        trials = read_trials(study, records)
        engines, described = study.user_attrs.get(ENGINES, {}), records.machines()
        machines = {key: described.get(key, {}) for key in machines_of(trials, engines)}
        names = names_of(machines)
        here = chosen(on, machines, names) if machines else ""
        places = {
            key: place_of(
                key,
                measurements=Measurements(database.db),
                stamp=stamp,
                trials=trials,
                engines=engines,
                limits=study.user_attrs.get(MEMORY_LIMITS, {}),
                described=machines[key],
                name=names[key],
            )
            for key in machines
        }
        place = places.get(here, NOWHERE)
        there = place.trials(trials)
        in_time = _time_answer(place, there, stamp.space, asked) if in_seconds else None
        advice = None if in_seconds else _advice(place, there, stamp.space, asked, tolerance, counts)
        best = recommend(there, advice)
        advised = advice if in_time is None else in_time.advice
        found = to_target(there, asked.target if target is None else target)
        report = Report(
            study=study.study_name,
            goal=asked.describe(),
            storage=database.url,
            machine=machines.get(here, {}),
            machines=[_on(each, trials, stamp.space, asked, tolerance, counts) for each in places.values()]
            if len(places) > 1
            else [],
            trials=count_states(trials),
            recommendation=best,
            advice=advice,
            by_batch_size=compared(by_batch_size(there), advice, found),
            elapsed_seconds=float(study.user_attrs.get(ELAPSED, 0.0)),
            to_target=found,
            confirmation=confirmation(
                Confirmations(database.db, study_id_of(study)).all(),
                None if advised is None else advised.best.params,
                stamp.goal.target,
            ),
            gradient_noise=gradient_noise(trials),
            time=in_time,
            front=front(advice) if asked.kind == "pareto" else [],
            max_batch_size=_largest(place, stamp),
            largest_of_space=stamp.space.largest,
            memory_bytes=place.memory_bytes,
            step_time=place.step_time,
            fastest_by_laws=None if found is None else fastest_by_laws(found.law, place.step_time),
            notes=notes(there, best.trial if best else None),
            elsewhere=on is None and bool(machines.get(here)) and not is_this(machines[here]),
        )
        return Evidence(report, there, stamp.space)


def _advice(
    place: Place,
    there: Sequence[TrialRecord],
    space: SearchSpace,
    goal: Goal,
    tolerance: float | None,
    counts: Counts | None,
) -> Advice | None:
    """What is advised on a machine, from trials as it has them."""
    return advise_from(
        there,
        space,
        max_epochs=goal.epochs,
        tolerance=tolerance,
        max_batch_size=place.max_batch_size,
        seconds_per_epoch=place.seconds_per_epoch,
        counts=counts,
    )


def _time_answer(place: Place, there: Sequence[TrialRecord], space: SearchSpace, goal: Goal) -> TimeAnswer:
    """How soon the target is reached on a machine, from trials as it has them."""
    return time_answer(
        there, space, goal, max_batch_size=place.max_batch_size, seconds_per_epoch=place.seconds_per_epoch
    )


def _largest(place: Place, stamp: Stamp) -> int | None:
    """The largest batch size of the space that is known to fit."""
    sizes = [size for size in stamp.space.grid_batch_sizes() if size <= (place.largest or 0)]
    return int(max(sizes)) if sizes else None


def _on(
    place: Place,
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    goal: Goal,
    tolerance: float | None,
    counts: Counts | None,
) -> MachineAdvice:
    """What is best on one of several machines."""
    there, largest = place.trials(trials), place.max_batch_size
    if goal.kind == "time":
        in_time = _time_answer(place, there, space, goal).advice
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
    advice = _advice(place, there, space, goal, tolerance, counts)
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
        return read_trials(study, Records(database.db))


def read_stamp(storage: str, name: str | None = None) -> tuple[str, Stamp]:
    """The name of a study and the question it asks; arguments and errors as `read_report`."""
    with _reading(storage) as database:
        study, stamp = _stamped(database, name or _only_study(database))
        return study.study_name, stamp


def list_studies(storage: str) -> list[dict[str, Any]]:
    """The studies of a database that batchopt made, by name: `study`, `goal`, and counts of `trials` by state.

    Raises:
        StorageError: there is no such database.
    """
    with _reading(storage) as database:
        found = []
        for name in _study_names(database):
            study, stamp = _stamped(database, name)
            trials = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
            found.append({"study": name, "goal": stamp.goal.describe(), "trials": dict(trials)})
        return found


@contextmanager
def _reading(storage: str | Database) -> Iterator[Database]:
    if isinstance(storage, Database):
        yield storage
    else:
        with opened(storage) as database:
            yield database


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
    listed = ", ".join(map(printable, names))
    raise StudyNotFound(f"{database.url} holds several studies; choose one of {listed} with --study.")
