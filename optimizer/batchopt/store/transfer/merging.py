"""Two copies of one study become one: by the GUIDs of trials, what is further trained wins, nothing is there twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchopt.errors import StorageError, StudyMismatch
from batchopt.store.attributes import ATTRIBUTE, ELAPSED, ENGINES
from batchopt.store.transfer.rows import Rows
from batchopt.store.transfer.study_rows import (
    CONFIRMATIONS,
    EPOCHS,
    STUDY_SYSTEM_ATTRIBUTES,
    STUDY_USER_ATTRIBUTES,
    Row,
    StudyRows,
    TrialRows,
    as_text,
    digest,
    note_of,
)

QUESTION = ("space", "goal", "program")
"""What two studies must have in common to be one; their seeds may differ, and so may what wrote them."""

Progress = Callable[[str], None]


@dataclass
class Joined:
    """What became of one study.

    Attributes:
        study: its name.
        added, continued, known: how many trials are new, were further trained, or were there already.
        left: what of it could not be read, a sentence each.
        conflicts: copies of one trial that were trained on apart, a sentence each.
        written: the digest of each trial that was written, by GUID.
        confirmations: the runs that confirm, as text.
    """

    study: str
    added: int = 0
    continued: int = 0
    known: int = 0
    conflicts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    confirmations: set[str] = field(default_factory=set)


def join(source: StudyRows, target: Rows, where: str, joined: Joined, progress: Progress) -> None:
    """Write what a database lacks of a study.

    Args:
        source: the study as another database has it.
        target: the database, in a transaction.
        where: the other database, for what is said.
        joined: filled.
        progress: told how far it is.

    Raises:
        StudyMismatch: the two ask different questions.
    """
    if source.name not in target.names():
        target.add_study(StudyRows(source.study_id, source.name, source.rows, []))
    target.lock(source.name)
    there = target.read(source.name)
    _check_question(source, there, where)
    _join_attributes(source, there, target)
    _join_confirmations(source, there, target, joined)
    number = max((trial.number for trial in there.trials), default=-1) + 1
    by_guid = {trial.guid: trial for trial in there.trials}
    queued = {trial.asked: trial for trial in there.trials if trial.state == "WAITING" and trial.asked}
    asked = {trial.asked for trial in there.trials if trial.asked}
    places: dict[int, int] = {}
    for done, trial in enumerate(source.trials):
        if done % 100 == 0:
            progress(f"{source.name}: {done} of {len(source.trials)} trials")
        # Whoever queued a configuration before the studies were parted has it trained once.
        known = by_guid.get(trial.guid) or (queued.pop(trial.asked, None) if trial.state != "WAITING" else None)
        if known is not None:
            places[trial.trial_id] = known.trial_id
            _meet(trial, known, target, where, joined)
        elif trial.state == "WAITING" and trial.asked in asked:
            joined.known += 1
        else:
            places[trial.trial_id] = target.add_trial(there.study_id, number, trial)
            joined.written[trial.guid] = digest(trial)
            joined.added += 1
            number += 1
    _join_notes(source, there, target, places)


def _meet(trial: TrialRows, known: TrialRows, target: Rows, where: str, joined: Joined) -> None:
    """Two copies of one trial: the one that is further stays."""
    further = trial.progress > known.progress
    if digest(trial) != digest(known) and not _one_history(trial, known):
        joined.conflicts.append(
            f"trial {known.number} of study {joined.study!r} ({known.guid}) was trained on apart: "
            f"{_shown(known)} here, {_shown(trial)} in {where}; kept {'the latter' if further else 'the former'}"
        )
    if further:
        target.replace_trial(known.trial_id, trial)
        joined.written.pop(known.guid, None)
        joined.written[trial.guid] = digest(trial)
        joined.continued += 1
    else:
        joined.known += 1


def _one_history(one: TrialRows, other: TrialRows) -> bool:
    """Whether one copy is the other one, at an earlier time."""
    if one.finished and other.finished:
        return one.state == other.state and as_text(one.outcome) == as_text(other.outcome)
    if other.progress > one.progress:
        one, other = other, one
    return all(row in one.rows[EPOCHS] for row in other.rows[EPOCHS])


def _shown(trial: TrialRows) -> str:
    epochs = len(trial.rows[EPOCHS])
    return f"{trial.state.lower()} after {epochs} epoch{'' if epochs == 1 else 's'}"


def _check_question(source: StudyRows, there: StudyRows, where: str) -> None:
    """Refuse to join studies that ask different questions.

    Raises:
        StudyMismatch: naming what differs, and what to do.
        StorageError: one of them was not made by batchopt.
    """
    stamp, other = source.attribute(ATTRIBUTE), there.attribute(ATTRIBUTE)
    if (stamp is None) != (other is None):
        raise StorageError(
            f"study {source.name!r} in {where} {'was not' if stamp is None else 'was'} made by batchopt, its namesake "
            f"{'was' if stamp is None else 'was not'}. They cannot be one study."
        )
    differs = [name for name in QUESTION if stamp is not None and stamp[name] != other[name]]
    if source.rows["study_directions"] != there.rows["study_directions"]:
        differs.append("directions")
    if differs:
        name = differs[0]
        shown = "" if stamp is None or name == "directions" else f": {_difference(stamp[name], other[name])}"
        raise StudyMismatch(
            f"study {source.name!r} in {where} has another {' and another '.join(differs)} than its namesake{shown}. "
            "Only studies of one question can be joined; export one of them to a database of its own."
        )


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first entry in which two descriptions differ."""
    key = next(key for key in {**one, **other} if one.get(key) != other.get(key))
    return f"{key} {one.get(key)!r} and {other.get(key)!r}"


def _join_attributes(source: StudyRows, there: StudyRows, target: Rows) -> None:
    """A study's attributes together: engines of all machines, the longer time; of all others the first ones stay."""
    engines = {**(source.attribute(ENGINES) or {}), **(there.attribute(ENGINES) or {})}
    if engines != (there.attribute(ENGINES) or {}):
        target.set_attribute(there.study_id, ENGINES, engines)
    # A sum would count what the copies have in common twice, and again whenever they are joined again.
    if (source.attribute(ELAPSED) or 0.0) > (there.attribute(ELAPSED) or 0.0):
        target.set_attribute(there.study_id, ELAPSED, source.attribute(ELAPSED))
    for table in (STUDY_USER_ATTRIBUTES, STUDY_SYSTEM_ATTRIBUTES):
        _add_missing(table, [row for row in source.rows[table] if note_of(row["key"]) is None], there, target)


def _join_confirmations(source: StudyRows, there: StudyRows, target: Rows, joined: Joined) -> None:
    """The runs that confirm; one that both have stays as it is."""
    known = {_run_of(row) for row in there.rows[CONFIRMATIONS]}
    new = [row for row in source.rows[CONFIRMATIONS] if _run_of(row) not in known]
    target.add_rows(CONFIRMATIONS, new, study_id=there.study_id)
    joined.confirmations |= {as_text(row) for row in (*there.rows[CONFIRMATIONS], *new)}


def _run_of(row: Row) -> tuple[Any, ...]:
    return row["plan"], row["role"], row["run"]


def _join_notes(source: StudyRows, there: StudyRows, target: Rows, places: Mapping[int, int]) -> None:
    """Notes on trials, which optuna-dashboard keeps with the study under the trial's id."""
    rows = []
    for row in source.rows[STUDY_SYSTEM_ATTRIBUTES]:
        trial_id = note_of(row["key"])
        if trial_id is not None and trial_id in places:
            _, _, what = row["key"].partition(f":{trial_id}:")
            rows.append(row | {"key": f"dashboard:{places[trial_id]}:{what}"})
    _add_missing(STUDY_SYSTEM_ATTRIBUTES, rows, there, target)


def _add_missing(table: str, rows: list[Row], there: StudyRows, target: Rows) -> None:
    known = {row["key"] for row in there.rows[table]} | (
        {ENGINES, ELAPSED} if table == STUDY_USER_ATTRIBUTES else set()
    )
    target.add_rows(table, [row for row in rows if row["key"] not in known], study_id=there.study_id)
