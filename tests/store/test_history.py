"""The trials of a study as plain records, read from the database alone."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from batchopt.errors import StudyNotFound
from batchopt.store.database import Database
from batchopt.store.history import TrialRecord, as_trial, open_study, read_trials, summary
from batchopt.store.ledger import Ledger
from optuna.distributions import CategoricalDistribution
from written_study import MACHINE, SPACE, begin, epoch, new_study


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, new_study(database))


def read(ledger: Ledger) -> list[TrialRecord]:
    return read_trials(ledger.study, ledger.records)


def test_a_study_that_is_not_there_is_refused_with_those_that_are(database: Database) -> None:
    with pytest.raises(StudyNotFound, match=r"no study 'mnist' in .*; it holds no study\. Check --study"):
        open_study(database, "mnist")
    new_study(database, "one")
    new_study(database, "another")
    with pytest.raises(StudyNotFound, match="it holds 'another', 'one'"):
        open_study(database, "mnist")
    assert open_study(database, "one").study_name == "one"


def test_a_complete_trial_has_its_parameters_value_and_curve(ledger: Ledger) -> None:
    begin(ledger, 64, 0.01)
    for number, accuracy in [(1, 0.75), (2, 0.875)]:
        ledger.add_epoch(0, MACHINE, epoch(number, accuracy), compile_seconds=0.0)
    ledger.complete(0, 0.875)
    (trial,) = read(ledger)
    assert (trial.number, trial.state, trial.note) == (0, "complete", "")
    assert (trial.batch_size, trial.learning_rate, trial.extra) == (64, 0.01, {})
    assert (trial.value, trial.train_seconds, trial.machine) == (0.875, 4.0, MACHINE.fingerprint)
    assert [row["value"] for row in trial.epochs] == [0.75, 0.875]
    assert trial.last["epoch"] == 2


def test_a_trial_whose_steps_know_no_loss_keeps_its_curve_and_one_that_diverged_has_no_last_value(
    ledger: Ledger,
) -> None:
    """A loss that is not known is none that was not finite."""
    for number, loss in [(0, None), (1, math.nan)]:
        begin(ledger, 64)
        ledger.add_epoch(number, MACHINE, epoch(1, 0.75), compile_seconds=0.0)
        unsure = dataclasses.replace(epoch(2, 0.875), train_loss=loss, validation_loss=loss)
        ledger.add_epoch(number, MACHINE, unsure, compile_seconds=0.0)
    unknown, diverged = (as_trial(record, held=False, max_epochs=3) for record in read(ledger))
    assert {number: value for number, (value, _) in unknown.curve.items()} == {1: 0.75, 2: 0.875}
    assert list(diverged.curve) == [1]
    assert summary(read(ledger)[0].epochs)["value"] == 0.875
    assert summary(read(ledger)[1].epochs)["value"] is None


def test_a_trial_before_its_first_epoch_has_neither_value_nor_machine(ledger: Ledger) -> None:
    begin(ledger, 64)
    (trial,) = read(ledger)
    assert (trial.state, trial.value, trial.epochs, trial.last) == ("running", None, [], {})
    assert (trial.machine, trial.train_seconds) == ("", 0.0)


def test_a_trial_that_waits_has_no_parameters_yet(ledger: Ledger) -> None:
    ledger.study.enqueue_trial({"batch_size": 16, "learning_rate": 0.01})
    (trial,) = read(ledger)
    assert (trial.state, trial.batch_size, trial.learning_rate) == ("waiting", None, None)


def test_a_pruned_trial_has_no_value_though_optuna_gives_it_one(ledger: Ledger) -> None:
    begin(ledger, 64)
    ledger.add_epoch(0, MACHINE, epoch(1, 0.5), compile_seconds=0.0)
    ledger.prune(0)
    (trial,) = read(ledger)
    assert (trial.state, trial.value) == ("pruned", None)
    assert trial.last["value"] == 0.5


def test_the_note_says_what_befell_a_trial(ledger: Ledger) -> None:
    for batch_size in (16, 64, 256):
        begin(ledger, batch_size)
    ledger.diverge(0)
    ledger.exceed_memory(1, bytes_over=1.0)
    ledger.fail(2, "the worker ended by signal SIGKILL")
    assert [(trial.state, trial.note) for trial in read(ledger)] == [
        ("pruned", "diverged"),
        ("pruned", "out of memory"),
        ("fail", "the worker ended by signal SIGKILL"),
    ]


def test_extra_dimensions_are_apart_from_the_two_that_every_space_has(ledger: Ledger) -> None:
    ledger.study.ask(SPACE.distributions() | {"optimizer": CategoricalDistribution(["adam"])})
    (trial,) = read(ledger)
    assert trial.extra == {"optimizer": "adam"}
    assert trial.describe()["extra.optimizer"] == "adam"


def test_a_trial_is_described_in_json_values_without_the_databases_own_numbers(ledger: Ledger) -> None:
    begin(ledger, 64)
    ledger.add_epoch(0, MACHINE, epoch(1, train_loss=float("nan")), compile_seconds=0.0)
    described = read(ledger)[0].describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert (described["trial"], described["batch_size"], described["train_seconds"]) == (0, 64, 2.0)
    assert described["epochs"][0]["train_loss"] is None
    assert "trial_id" not in described["epochs"][0]


def test_a_trial_has_a_flat_row_for_each_epoch_and_one_where_there_is_none(ledger: Ledger) -> None:
    for batch_size in (16, 64):
        begin(ledger, batch_size)
    for number in (1, 2):
        ledger.add_epoch(0, MACHINE, epoch(number), compile_seconds=0.0)
    rows = [row for trial in read(ledger) for row in trial.rows()]
    assert [(row["trial"], row["batch_size"], row.get("epoch")) for row in rows] == [
        (0, 16, 1),
        (0, 16, 2),
        (1, 64, None),
    ]
