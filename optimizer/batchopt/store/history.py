"""The trials of a study, with their curves, as plain records."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from batchopt.errors import StudyNotFound
from batchopt.goals.crossing import first_at
from batchopt.goals.to_target import NOT_REACHED
from batchopt.optuna_private import OPTUNAS_TABLES, study_id_of, trial_id_of
from batchopt.question.goal import Counts
from batchopt.question.metric import Target
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.search.steps import Trial
from batchopt.search.steps import TrialState as SearchState
from batchopt.search.trials import newest
from batchopt.store.attributes import (
    ATTRIBUTE,
    DIVERGED,
    FAILURE,
    MEMORY,
    MISSED,
    MISSED_JOULES,
    OUT_OF_MEMORY,
    UNTRAINABLE,
    WINDOW,
)
from batchopt.store.caching import Caching
from batchopt.store.database import Database
from batchopt.store.records import Records
from batchopt.store.tables import (
    database_clock,
    leases_table,
    optunas_studies,
    optunas_study_attributes,
    optunas_trials,
)
from batchopt.store.trial_rows import stored_trials


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Optuna's, from 0.
        trial_id: the database's.
        state: `running`, `complete`, `pruned`, `fail` or `waiting`.
        batch_size, learning_rate, extra: its parameters; None where it waits for them.
        value: the goal's value of a complete trial, the first where it has two.
        epochs: one row for each epoch, as in the table of epochs.
        note: `diverged`, `out of memory`, `target not reached`, why it cannot be trained or failed, or empty.
        machine: fingerprint of the machine that trained it last; empty before its first epoch.
    """

    number: int
    trial_id: int
    state: str
    batch_size: int | None
    learning_rate: float | None
    extra: dict[str, Any]
    value: float | None
    epochs: list[dict[str, Any]]
    note: str

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that it has been given, by name."""
        given = {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate}
        return {name: value for name, value in given.items() if value is not None} | self.extra

    @property
    def machine(self) -> str:
        return str(self.epochs[-1]["machine"]) if self.epochs else ""

    @property
    def train_seconds(self) -> float:
        """Seconds on the training clock, all epochs together."""
        return float(sum(epoch["train_seconds"] for epoch in self.epochs))

    @property
    def joules(self) -> float | None:
        """Energy of all epochs together; None where one of them has none."""
        drawn = [epoch.get("joules") for epoch in self.epochs]
        return None if not drawn or None in drawn else float(sum(each for each in drawn if each is not None))

    def describe(self) -> dict[str, Any]:
        """The trial as JSON values, its epochs included."""
        return {
            **self._head(),
            "train_seconds": self.train_seconds,
            "joules": self.joules,
            "epochs": [{k: v for k, v in epoch.items() if k != "trial_id"} for epoch in self.epochs],
        }

    def rows(self) -> list[dict[str, Any]]:
        """The trial as flat rows, one for each epoch; one row where there is none."""
        epochs: list[dict[str, Any]] = self.epochs or [{}]
        return [{**self._head(), **{k: v for k, v in epoch.items() if k != "trial_id"}} for epoch in epochs]

    def _head(self) -> dict[str, Any]:
        return {
            "trial": self.number,
            "state": self.state,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            **{f"extra.{name}": value for name, value in self.extra.items()},
            "note": self.note,
        }

    @property
    def last(self) -> dict[str, Any]:
        """The last epoch's row; empty before the first."""
        return self.epochs[-1] if self.epochs else {}


def open_study(database: Database, name: str) -> Study:
    """An existing study.

    Raises:
        StudyNotFound: naming those there are.
    """
    try:
        return optuna.load_study(study_name=name, storage=Caching(database.storage))
    except KeyError:
        names = optuna.get_all_study_names(database.storage)
        there = f"it holds {', '.join(map(repr, sorted(names)))}" if names else "it holds no study"
        raise StudyNotFound(f"no study {name!r} in {database.url}; {there}. Check --study.") from None


def names_made(database: Database) -> list[str]:
    """The names of the studies that batchopt made, sorted; others may live in the same database."""
    studies, attributes = optunas_studies.c, optunas_study_attributes.c
    stamped = sa.select(attributes.study_id).where(attributes.key == ATTRIBUTE)
    with database.db.connect() as connection:
        return sorted(connection.execute(sa.select(studies.study_name).where(studies.study_id.in_(stamped))).scalars())


def count_states(database: Database, study: Study) -> dict[str, int]:
    """How many trials a study has in each state."""
    trials = optunas_trials.c
    query = sa.select(trials.state, sa.func.count()).where(trials.study_id == study_id_of(study)).group_by(trials.state)
    with database.db.connect() as connection:
        return {state.name.lower(): count for state, count in connection.execute(query)}


def count_live_states(database: Database, study: Study) -> dict[str, int]:
    """The same, those that are open and that nobody trains at this moment as `paused`."""
    counts = count_states(database, study)
    trials, leases = optunas_trials.c, leases_table.c
    query = sa.select(sa.func.count()).join_from(optunas_trials, leases_table, leases.trial_id == trials.trial_id)
    query = query.where(trials.study_id == study_id_of(study), trials.state == TrialState.RUNNING)
    with database.db.connect() as connection:
        running = connection.execute(query.where(leases.expires_at >= database_clock())).scalar_one()
    paused = counts.pop("running", 0) - running
    return counts | {state: count for state, count in (("paused", paused), ("running", running)) if count > 0}


def best_complete(database: Database, study: Study, *, least: bool) -> FrozenTrial | None:
    """The complete trial whose first value is the least, or the largest; the first of several; None where none is.

    One that has lost its batch size or its learning rate is left out.
    """
    trials, values, params = (OPTUNAS_TABLES[name].c for name in ("trials", "trial_values", "trial_params"))
    query = sa.select(trials.trial_id).join(values.trial_id.table, values.trial_id == trials.trial_id)
    query = query.where(trials.study_id == study_id_of(study), trials.state == TrialState.COMPLETE)
    query = query.where(values.objective == 0, values.value.is_not(None))
    for name in (BATCH_SIZE, LEARNING_RATE):
        query = query.where(sa.exists().where(params.trial_id == trials.trial_id, params.param_name == name))
    query = query.order_by(values.value.asc() if least else values.value.desc(), trials.number).limit(1)
    with database.db.connect() as connection:
        best = connection.execute(query).scalar()
        return None if best is None else stored_trials(connection, study_id_of(study), [best], sys.maxsize)[0]


def read_trials(
    study: Study, records: Records, wanted: Callable[[FrozenTrial], bool] = lambda trial: True
) -> list[TrialRecord]:
    """The trials of a study that are wanted, by number; all of them by default."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if wanted(trial)]
    # An epoch is written together with its value: where Optuna's trial has not changed, its epochs have not.
    there = {trial_id_of(trial): trial for trial in trials}
    epochs = {key: rows for key, (trial, rows) in records.known.items() if there.get(key) is trial}
    epochs |= records.epochs(there.keys() - epochs.keys())
    records.known = {key: (there[key], rows) for key, rows in epochs.items() if not there[key].state.is_finished()}
    return [_record(trial, epochs[trial_id_of(trial)]) for trial in trials]


def counting(study: Study, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those of a study's trials that its advice is of: all, or the newest of a study that watches no more."""
    window = study.user_attrs.get(WINDOW)
    return newest(trials, window if isinstance(window, int) else None, lambda trial: trial.state == "running")


def _record(trial: FrozenTrial, epochs: list[dict[str, Any]]) -> TrialRecord:
    params = dict(trial.params)
    return TrialRecord(
        number=trial.number,
        trial_id=trial_id_of(trial),
        state=trial.state.name.lower(),
        batch_size=params.pop(BATCH_SIZE, None),
        learning_rate=params.pop(LEARNING_RATE, None),
        extra=params,
        value=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        epochs=epochs,
        note=_note(trial),
    )


def _note(trial: FrozenTrial) -> str:
    if trial.user_attrs.get(DIVERGED):
        return DIVERGED
    if trial.constraints.get(MEMORY, 0.0) > 0:
        return OUT_OF_MEMORY
    if MISSED in trial.user_attrs or MISSED_JOULES in trial.user_attrs:
        return NOT_REACHED
    if UNTRAINABLE in trial.user_attrs:
        return f"{UNTRAINABLE}: {trial.user_attrs[UNTRAINABLE]}"
    return str(trial.user_attrs.get(FAILURE, ""))


def summary(epochs: list[dict[str, Any]]) -> dict[str, float | int | str | None]:
    """A trial in the words of its epochs: sums of seconds and steps, the last of the rest."""
    if not epochs:
        return {"epochs": 0}
    total = {
        name: sum(epoch[name] for epoch in epochs)
        for name in ("train_seconds", "evaluation_seconds", "compile_seconds", "steps")
    }
    last = {name: epochs[-1][name] for name in ("train_loss", "train_value", "validation_loss", "value", "machine")}
    speed = statistics.median(epoch["examples_per_second"] for epoch in epochs)
    return {**last, **total, "examples_per_second": speed, "epochs": len(epochs)}


def as_trial(
    record: TrialRecord,
    *,
    held: bool,
    max_epochs: int,
    target: Target | None = None,
    counts: Counts | None = None,
    sign: float = 1.0,
) -> Trial:
    """A stored trial as a search knows it.

    Args:
        record: as stored.
        held: by another process, or not.
        max_epochs, target: its goal's.
        counts: by which epoch it counts, where that is asked: its values are the best so far then, or as they are, and
            one that has ended by itself stays at its last. None for the curve as it was, whatever the goal.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    assert record.batch_size is not None
    assert record.learning_rate is not None
    curve = {
        row["epoch"]: (row["value"], row["train_seconds"])
        for row in record.epochs
        # Where it diverged there is none; without its end that epoch is trained once more, and ends it.
        if row["value"] is not None
    }
    if record.state == "running":
        # All that it needs and no end: it died between the two, and its last epoch is trained once more.
        last = max_epochs if target is None else first_at(target, curve) or max_epochs
        curve = {epoch: point for epoch, point in curve.items() if epoch < last}
    state, reason = _state(record, held=held)
    if counts == "best":
        scores = itertools.accumulate((sign * value for value, _ in curve.values()), max)
        curve = {epoch: (sign * score, curve[epoch][1]) for epoch, score in zip(curve, scores, strict=True)}
    trial = Trial(
        record.number, record.batch_size, record.learning_rate, record.extra, curve, state=state, reason=reason
    )
    if counts is not None and state == "complete" and curve:
        trial.stay(max_epochs)
    return trial


def _state(record: TrialRecord, *, held: bool) -> tuple[SearchState, str]:
    if record.state == "complete":
        return "complete", ""
    if record.state == "running":
        return ("running" if held else "paused"), ""
    if record.state == "fail":
        return "infeasible", "failed"
    # What ran out of memory did so on its machine, maybe another one; what this one holds, its capacity says. But where
    # a model has dimensions of its own, these may be the cause.
    infeasible = {DIVERGED: "diverged", OUT_OF_MEMORY: "untrainable" if record.extra else "failed"}
    infeasible |= {record.note: "untrainable"} if record.note.startswith(f"{UNTRAINABLE}: ") else {}
    return ("infeasible", infeasible[record.note]) if record.note in infeasible else ("stopped", "")
