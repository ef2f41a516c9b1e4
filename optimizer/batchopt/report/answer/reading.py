"""Reports and trials from a database alone: no TensorFlow, nothing written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import optuna

from batchopt.errors import InvalidInput, StorageError, StudyNotFound
from batchopt.optuna_private import study_id_of
from batchopt.question.goal import TO_TARGET, Counts, Goal, GoalKind, Prefer
from batchopt.question.metric import Metric
from batchopt.report.answer import outlook
from batchopt.report.answer.batch_sizes import by_batch_size, count_states, score
from batchopt.report.answer.confirmation import confirmation
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.goals import TargetAnswer, front, lacking, price_of, target_answer, targeted
from batchopt.report.answer.noise import gradient_noise
from batchopt.report.answer.notes import notes, windowed
from batchopt.report.answer.places import Place, chosen, is_this, machines_of, names_of, place_of
from batchopt.report.answer.recommendation import MachineAdvice, Report, advise_from, compared, recommend
from batchopt.report.answer.targets import fastest_by_laws, to_target
from batchopt.store import history
from batchopt.store.access import opened
from batchopt.store.attributes import ACCUMULATE, ELAPSED, ENGINES, MEMORY_LIMITS
from batchopt.store.confirmations import Confirmations
from batchopt.store.database import Database
from batchopt.store.history import TrialRecord, counting, names_made, open_study, read_trials
from batchopt.store.measurements import Measurements
from batchopt.store.records import Records
from batchopt.store.stamp import Stamp
from batchopt.store.study_facts import preference
from batchopt.text import printable

if TYPE_CHECKING:
    from batchopt.search.advice import Advice


NOWHERE = Place("", "", None, None)
"""Where a study was that no machine has joined."""


def read_evidence(
    storage: str | Database,
    name: str | None = None,
    on: str | None = None,
    *,
    tolerance: float | None = None,
    target: float | None = None,
    goal: GoalKind | None = None,
    prefer: Prefer | None = None,
    energy_weight: float | None = None,
) -> Evidence:
    """What a study has found, for one of its machines, with all that its pictures are made of.

    Args:
        storage: a path, an SQLAlchemy URL, or a database that is open; what that refuses is raised as it is, and may
            pass.
        name: of the study; may be None where the database holds only one.
        on: the machine: the beginning of its fingerprint, or a part of its name. This one where None, if it is in the
            study, or else the study's first.
        tolerance: what counts as equally good, in the metric's units; None for what matters (`search/advising.py`).
        target: value of the metric that times are told to; None for the goal's, or one that half of the batch sizes
            reached.
        goal: what is asked for; the study's own where None.
        prefer: what is recommended: the fastest that is most likely as good as the best (`balanced`), the `best`
            whatever it takes, or the `fastest` that is as good with even odds; None for what the study was asked.
        energy_weight: as of `Goal`, for `energy`; the study's own where None.

    Raises:
        StorageError: there is no such database or study.
        InvalidInput: `on` is none of the study's machines, or several; `goal` lacks a target; a number that is none;
            another goal than the study's own that asks for what its machine does not tell.
    """
    for option, value in (("--tolerance", tolerance), ("--target", target)):
        if value is not None and not math.isfinite(value):
            raise InvalidInput(f"{option} {value}: give a number.")
    with _reading(storage) as database:
        study, stamp = _stamped(database, _only_study(database) if name is None else name)
        wanted = target if (goal or stamp.goal.kind) in TO_TARGET else None
        asked, metric = stamp.goal.changed(goal, wanted, energy_weight=energy_weight), stamp.metric
        # Refuses one that no value can be at.
        metric.target(target)
        to_a_target = asked.kind in TO_TARGET
        prefer = prefer or preference(study)
        records = Records(database.db)
        every = read_trials(study, records)
        trials = counting(study, every)
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
                accumulate=study.user_attrs.get(ACCUMULATE, False),
            )
            for key in machines
        }
        place = places.get(here, NOWHERE)
        if asked != stamp.goal and trials and (why := lacking(asked, metric, place, machines.get(here, {}))):
            raise InvalidInput(why)
        there = place.trials(trials)
        at_target, advice = _answered(place, there, stamp, asked, tolerance, prefer)
        best = recommend(there, advice, asked, metric, place.draws)
        found = to_target(there, metric, asked.target if target is None else target)
        report = Report(
            study=study.study_name,
            goal=asked.describe(),
            metric=metric,
            storage=database.url,
            machine=machines.get(here, {}),
            machines=[_on(each, trials, stamp, asked, tolerance, prefer) for each in places.values()]
            if len(places) > 1
            else [],
            trials=count_states(every),
            recommendation=best,
            advice=advice,
            by_batch_size=compared(
                by_batch_size(there, metric, asked.value),
                advice,
                found,
                metric.sign,
                in_values=not to_a_target,
                epochs=asked.epochs,
                draws=place.draws,
            ),
            elapsed_seconds=float(study.user_attrs.get(ELAPSED, 0.0)),
            to_target=found,
            confirmation=confirmation(
                Confirmations(database.db, study_id_of(study)).all(),
                None if best is None else best.params,
                stamp.target,
            ),
            gradient_noise=gradient_noise(trials),
            at_target=at_target,
            front=front(advice, metric.sign) if asked.kind == "pareto" else [],
            max_batch_size=_largest(place, stamp),
            accumulate=study.user_attrs.get(ACCUMULATE, False),
            largest_of_space=stamp.space.largest,
            memory_bytes=place.memory_bytes,
            step_time=place.step_time,
            fastest_by_laws=None if found is None else fastest_by_laws(found.law, place.step_time),
            notes=[
                *windowed(len(trials), len(every)),
                *notes(
                    there,
                    _curve_of(advice, there, metric, asked.value) if best and not to_a_target else None,
                    metric,
                    asked.epochs if stamp.target is None else None,
                ),
            ],
            outlook=[] if best is None or advice is None else _outlook(advice, there, trials, stamp, asked, place),
            question={
                "space": stamp.space.describe(),
                "train_examples": stamp.program.train_examples,
                "validation_examples": stamp.program.validation_examples,
            },
            dates=_dates(study),
            versions=_versions(machines.get(here, {}), stamp),
            elsewhere=on is None and bool(machines.get(here)) and not is_this(machines[here]),
        )
        return Evidence(report, there, stamp.space)


def _curve_of(advice: Advice | None, trials: Sequence[TrialRecord], metric: Metric, counts: Counts) -> int | None:
    """The trial whose curve tells of what is recommended: its own, or else the best one of its batch size."""
    if advice is None or advice.recommended.trial >= 0:
        return None if advice is None else advice.recommended.trial
    size = advice.recommended.batch_size
    same = [trial for trial in trials if trial.state == "complete" and trial.batch_size == size and trial.epochs]
    return max(same, key=lambda trial: score(trial, metric, counts)).number if same else None


def _outlook(
    advice: Advice,
    there: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    stamp: Stamp,
    goal: Goal,
    place: Place,
) -> list[str]:
    """What would change the answer; times are of the trials as they were trained."""
    held = math.inf if place.max_batch_size is None else place.max_batch_size
    most, to_target = int(min(stamp.program.train_examples, held)), targeted(goal, stamp.metric)
    return [
        *outlook.against_default(advice.against_default, advice, stamp.metric, to_target),
        *outlook.untrained(advice),
        *outlook.too_few(advice),
        *outlook.edges(advice, stamp.space, most=most, to_target=to_target),
        *outlook.busy(trials),
    ]


def _dates(study: optuna.Study) -> list[str]:
    """When the first trial began and the last one ended."""
    trials = study.get_trials(deepcopy=False)
    began = min((trial.datetime_start for trial in trials if trial.datetime_start), default=None)
    ended = max((trial.datetime_complete for trial in trials if trial.datetime_complete), default=began)
    return [] if began is None or ended is None else [date.isoformat(timespec="seconds") for date in (began, ended)]


def _versions(machine: dict[str, Any], stamp: Stamp) -> dict[str, str]:
    """Of what trained, as the machine says it, and of what searched."""
    told = machine.get("versions")
    return {**(told if isinstance(told, dict) else {}), **stamp.versions}


def _answered(
    place: Place,
    there: Sequence[TrialRecord],
    stamp: Stamp,
    goal: Goal,
    tolerance: float | None,
    prefer: Prefer,
) -> tuple[TargetAnswer | None, Advice | None]:
    """Who reached the goal's target, where it has one, and what is advised, from trials as a machine has them."""
    held, seconds = place.max_batch_size, place.seconds_per_epoch
    if goal.kind in TO_TARGET:
        return target_answer(
            there,
            stamp.space,
            goal,
            stamp.metric,
            max_batch_size=held,
            seconds_per_epoch=seconds,
            price=price_of(goal, stamp.metric, place),
        )
    return None, advise_from(
        there,
        stamp.space,
        stamp.metric,
        max_epochs=goal.epochs,
        tolerance=tolerance,
        max_batch_size=held,
        seconds_per_epoch=seconds,
        # Where a target ended trials, their last epoch is not what they would have come to.
        counts=goal.value if stamp.goal.target is None else None,
        prefer=prefer,
    )


def _largest(place: Place, stamp: Stamp) -> int | None:
    """The largest batch size of the space that is known to fit."""
    sizes = [size for size in stamp.space.grid_batch_sizes() if size <= (place.largest or 0)]
    return int(max(sizes)) if sizes else None


def _on(
    place: Place,
    trials: Sequence[TrialRecord],
    stamp: Stamp,
    goal: Goal,
    tolerance: float | None,
    prefer: Prefer,
) -> MachineAdvice:
    """What is best on one of several machines."""
    there = place.trials(trials)
    _, advice = _answered(place, there, stamp, goal, tolerance, prefer)
    best = recommend(there, advice, goal, stamp.metric, place.draws)
    timed = best is not None and advice is not None and place.seconds_per_epoch is not None
    return MachineAdvice(
        fingerprint=place.fingerprint,
        name=place.name,
        batch_size=best.batch_size if best else None,
        learning_rate=best.learning_rate if best else None,
        seconds=best.seconds if best and timed else None,
        best=advice.best.batch_size if advice and timed else None,
        max_batch_size=place.max_batch_size,
    )


def read_study(storage: str, name: str | None = None) -> list[TrialRecord]:
    """The trials of a study, by number; arguments and errors as `read_evidence`."""
    with _reading(storage) as database:
        study, _ = _stamped(database, _only_study(database) if name is None else name)
        return read_trials(study, Records(database.db))


def read_stamp(storage: str, name: str | None = None) -> tuple[str, Stamp]:
    """The name of a study and the question it asks; arguments and errors as `read_evidence`."""
    with _reading(storage) as database:
        study, stamp = _stamped(database, _only_study(database) if name is None else name)
        return study.study_name, stamp


def list_studies(storage: str) -> list[dict[str, Any]]:
    """The studies of a database that batchopt made, by name: `study`, `goal`, `metric`, counts of `trials` by state.

    Raises:
        StorageError: there is no such database.
    """
    with _reading(storage) as database:
        found = []
        for name in names_made(database):
            study, stamp = _stamped(database, name)
            trials, metric = history.count_live_states(database, study), asdict(stamp.metric)
            found.append({"study": name, "goal": stamp.goal.describe(), "metric": metric, "trials": trials})
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


def _only_study(database: Database) -> str:
    names = names_made(database)
    if len(names) == 1:
        return names[0]
    if not names:
        raise StudyNotFound(f"database {database.url} holds no study.")
    listed = ", ".join(map(printable, names))
    raise StudyNotFound(f"{database.url} holds several studies; choose one of {listed} with --study.")
