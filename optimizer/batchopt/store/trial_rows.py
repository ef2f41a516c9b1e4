"""Optuna's trials from their rows, in one plain statement a table: what its own models take ten times as long for.

What summarises a trial for other programs is left out: in a study of ten thousand trials it is two thirds of all rows.
"""

from __future__ import annotations

import functools
import gc
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial

from batchopt.optuna_private import OPTUNAS_TABLES, intermediate_value_of, value_of
from batchopt.store.attributes import SUMMARY

CHUNK = 500
"""SQL databases bound the number of parameters of one statement."""

distribution_of = functools.lru_cache(maxsize=1024)(json_to_distribution)
"""The trials of a study have few distributions, and each names its own anew."""


def stored_trials(
    connection: sa.Connection, study_id: int, trial_ids: Collection[int], newest: int
) -> list[FrozenTrial]:
    """The trials of a study that have one of these ids, or one above `newest`, as Optuna has them but for `SUMMARY`.

    Raises:
        KeyError: there is no such study.
    """
    studies = OPTUNAS_TABLES["studies"].c
    if connection.execute(sa.select(studies.study_id).where(studies.study_id == study_id)).first() is None:
        raise KeyError(f"no study has the id {study_id}")
    known = sorted(trial_id for trial_id in trial_ids if trial_id <= newest)
    with uncollected():
        found = [
            trial
            for start in range(0, len(known), CHUNK)
            for trial in _read(connection, study_id, known[start : start + CHUNK], None)
        ]
        return [*found, *_read(connection, study_id, None, newest)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Many records are made that stay: Python would look through all of them, again and again, for circles to free."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _read(
    connection: sa.Connection, study_id: int, ids: Sequence[int] | None, newest: int | None
) -> Iterator[FrozenTrial]:
    trials = OPTUNAS_TABLES["trials"].c
    wanted = [trials.study_id == study_id]
    wanted += [trials.trial_id.in_(ids)] if ids is not None else [trials.trial_id > newest]
    query = sa.select(trials.trial_id, trials.number, trials.state, trials.datetime_start, trials.datetime_complete)
    rows: Sequence[Any] = connection.execute(query.where(*wanted).order_by(trials.trial_id)).all()
    if not rows:
        return

    # Of few trials their own rows; of many, all in one go.
    few = [row[0] for row in rows] if len(rows) <= CHUNK else None

    def children(table: str, *names: str) -> Sequence[Any]:
        """The rows of these trials in another table, in the order in which they were written."""
        there = OPTUNAS_TABLES[table]
        key = next(iter(there.primary_key))
        query = sa.select(there.c.trial_id, *(there.c[name] for name in names), key)
        if few is not None:
            query = query.where(there.c.trial_id.in_(few))
        else:
            query = query.join(trials.trial_id.table, trials.trial_id == there.c.trial_id).where(*wanted)
        if table == "trial_user_attributes":
            query = query.where(there.c.key.not_in(SUMMARY))
        # Not by the database: SQLite would walk through the whole table in that order rather than sort a few rows.
        return sorted(connection.execute(query).all(), key=itemgetter(-1))

    attributes, system = (
        _attributes(children(f"trial_{whose}_attributes", "key", "value_json")) for whose in ("user", "system")
    )
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    for trial_id, name, value, text, _ in children("trial_params", "param_name", "param_value", "distribution_json"):
        distribution = distributions[trial_id][name] = distribution_of(text)
        params[trial_id][name] = distribution.to_external_repr(value)
    values: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for trial_id, objective, value, kind, _ in children("trial_values", "objective", "value", "value_type"):
        values[trial_id].append((objective, value_of(value, kind)))
    reported: dict[int, dict[int, float]] = defaultdict(dict)
    columns = "step", "intermediate_value", "intermediate_value_type"
    for trial_id, step, value, kind, _ in children("trial_intermediate_values", *columns):
        reported[trial_id][step] = intermediate_value_of(value, kind)
    for trial_id, number, state, started, completed in rows:
        yield FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=_in_order(values[trial_id]) if trial_id in values else None,
            datetime_start=started,
            datetime_complete=completed,
            params=params.get(trial_id, {}),
            distributions=distributions.get(trial_id, {}),
            user_attrs=attributes.get(trial_id, {}),
            system_attrs=system.get(trial_id, {}),
            intermediate_values=reported.get(trial_id, {}),
            trial_id=trial_id,
        )


def _attributes(rows: Sequence[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # public, and forgotten in its stub
    for trial_id, key, text, _ in rows:
        try:
            # What `json.loads` does for a text that begins with its value, without what it does around that.
            value, end = scan(text, 0)
        except StopIteration:
            end = -1
        found[trial_id][key] = value if end == len(text) else json.loads(text)
    return found


def _in_order(found: Sequence[tuple[int, float]]) -> list[float]:
    values = [0.0 for _ in found]
    for objective, value in found:
        values[objective] = value
    return values
