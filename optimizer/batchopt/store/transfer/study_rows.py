"""A study as rows that no database's ids tie together: what is copied, compared, and named everywhere alike.

Each database numbers studies and trials for itself, so a row is read without its ids and written with those of its new
place. What a trial is called everywhere is its GUID, a user attribute: written when the trial begins, or derived from
how it began where another program, or an earlier version, has begun it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchopt.store.attributes import GUID
from batchopt.store.checkpoints import content_of
from batchopt.store.folders import Folders, check_digest
from batchopt.store.tables import (
    checkpoints_table,
    confirmations_table,
    epochs_table,
    optunas_study_attributes,
    optunas_study_system_attributes,
    optunas_user_attributes,
)

STUDIES, TRIALS = "studies", "trials"
USER_ATTRIBUTES, SYSTEM_ATTRIBUTES = optunas_user_attributes.name, "trial_system_attributes"
STUDY_USER_ATTRIBUTES, STUDY_SYSTEM_ATTRIBUTES = optunas_study_attributes.name, optunas_study_system_attributes.name
PARAMS, VALUES, CURVE = "trial_params", "trial_values", "trial_intermediate_values"
EPOCHS, CHECKPOINTS, CONFIRMATIONS = epochs_table.name, checkpoints_table.name, confirmations_table.name

OF_STUDY = ("study_directions", STUDY_USER_ATTRIBUTES, STUDY_SYSTEM_ATTRIBUTES, CONFIRMATIONS)
"""The tables with rows of a study; those with rows of its trials are `OF_TRIAL`."""

OF_TRIAL = (USER_ATTRIBUTES, SYSTEM_ATTRIBUTES, PARAMS, VALUES, CURVE, EPOCHS, CHECKPOINTS)

FINISHED = ("COMPLETE", "PRUNED", "FAIL")

Row = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """A checkpoint's bytes, which stay where they are until they are written elsewhere: all together may be too many.

    Attributes:
        sha256: of the bytes as they are.
        read: gives them, as long as the transaction lasts that they were found in.
    """

    sha256: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class TrialRows:
    """A trial.

    Attributes:
        trial_id: in the database it was read from.
        number: Optuna's.
        row: of the table of trials.
        rows: of the tables of `OF_TRIAL`; the `content` of a checkpoint is a `Content`.
        guid_written: whether its GUID was in the database, and not derived.
    """

    trial_id: int
    number: int
    row: Row
    rows: Mapping[str, list[Row]]
    guid_written: bool

    @property
    def attributes(self) -> dict[str, Any]:
        """Its user attributes."""
        return attributes_of(self.rows[USER_ATTRIBUTES])

    @property
    def guid(self) -> str:
        return str(self.attributes[GUID])

    @property
    def state(self) -> str:
        return str(self.row["state"])

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def asked(self) -> str:
        """The parameters that it was queued with, as text; empty where it was not queued."""
        return str(dict(_pairs(self.rows[SYSTEM_ATTRIBUTES])).get("fixed_params", ""))

    @property
    def outcome(self) -> dict[str, list[Row]]:
        """What training it came to."""
        return {name: self.rows[name] for name in (PARAMS, VALUES, CURVE, EPOCHS)}

    @property
    def progress(self) -> tuple[bool, int, int]:
        """How far it is; of two copies, the greater one is further."""
        kept = max((row["epoch"] for row in self.rows[CHECKPOINTS]), default=0)
        return self.finished, len(self.rows[EPOCHS]) or len(self.rows[CURVE]), kept


@dataclass(frozen=True)
class StudyRows:
    """A study: its id where it was read, its rows of the tables of `OF_STUDY`, its trials by number."""

    study_id: int
    name: str
    rows: Mapping[str, list[Row]]
    trials: list[TrialRows]

    def attribute(self, key: str) -> Any:
        """A user attribute; None where there is none."""
        return attributes_of(self.rows[STUDY_USER_ATTRIBUTES]).get(key)


def digest(trial: TrialRows) -> str:
    """SHA-256 of all that a trial is, wherever it is kept; its number left out."""
    return hashlib.sha256(as_text({"row": trial.row, **trial.rows}).encode()).hexdigest()


def as_text(value: Any) -> str:
    """A row, or rows, as text that is the same in every database; the bytes of checkpoints as their SHA-256."""
    return json.dumps(value, sort_keys=True, default=_plain)


def canonical(value: Any) -> Any:
    """A value as every database can hold it."""
    return value.replace(microsecond=0) if isinstance(value, datetime.datetime) else value


def whole(row: Row, folders: Folders) -> Content:
    """A checkpoint's bytes, from its row or from its file, as they were written.

    Args:
        row: of the table of checkpoints.
        folders: of its database.

    Raises:
        DamagedCheckpoint: they are not those that were written, or their file is not there.
    """
    if row["location"]:
        read = partial(content_of, b"", row["sha256"], row["location"], folders)
        read()
        return Content(row["sha256"], read)
    content: Content = row["content"]
    check_digest(content.sha256, row["sha256"])
    return content


def note_of(key: str) -> int | None:
    """The id of the trial that one of optuna-dashboard's notes is on; None for any other attribute of a study."""
    first, _, rest = key.partition(":")
    number, _, what = rest.partition(":")
    return int(number) if first == "dashboard" and number.isdigit() and what.startswith("note") else None


def name_all(study: StudyRows) -> None:
    """Give a GUID to the trials without one: the same for every copy of such a trial."""
    alike: Counter[str] = Counter()
    for trial in study.trials:
        if trial.guid_written:
            continue
        began = [study.name, trial.row["datetime_start"], trial.rows[PARAMS], trial.asked]
        name = hashlib.sha256(as_text(began).encode()).hexdigest()[:32]
        alike[name] += 1
        if alike[name] > 1:
            name = hashlib.sha256(f"{name} {alike[name]}".encode()).hexdigest()[:32]
        trial.rows[USER_ATTRIBUTES].append({"key": GUID, "value_json": json.dumps(name)})
        trial.rows[USER_ATTRIBUTES].sort(key=as_text)


def attributes_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Rows of attributes as what they say."""
    return {key: json.loads(value) for key, value in _pairs(rows)}


def _pairs(rows: Iterable[Row]) -> list[tuple[str, str]]:
    return [(row["key"], row["value_json"]) for row in rows]


def _plain(value: Any) -> str:
    if isinstance(value, Content):
        return value.sha256
    return str(canonical(value))
