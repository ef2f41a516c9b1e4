"""What the ledger writes, read back by plain Optuna, as any other program would."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.question.options import LEASE_SECONDS
from batchopt.store.attributes import GUID
from batchopt.store.database import Database, open_database
from batchopt.store.history import as_trial, read_trials
from batchopt.store.leases import TURN_SECONDS, LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.tables import checkpoints_table, epochs_table, leases_table, turns_table
from optuna.trial import TrialState
from written_study import MACHINE, begin, epoch, new_study

KILLED_SESSION = """
import os, sys
from batchopt.question.options import LEASE_SECONDS
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from written_study import MACHINE, begin, epoch, new_study

database = open_database(sys.argv[1], create=True)
ledger = Ledger(database, new_study(database))
for batch_size in (16, 64):
    begin(ledger, batch_size)
ledger.add_epoch(0, MACHINE, epoch(1, 0.75), compile_seconds=0.0)
ledger.add_checkpoint(0, 1, b"state after one epoch")
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, new_study(database))


def plain(database: Database) -> optuna.Study:
    """The study as Optuna alone sees it."""
    return optuna.load_study(study_name="mnist", storage=database.url)


def count(database: Database, table: sa.Table) -> int:
    with database.db.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def add_epochs(ledger: Ledger, number: int, *accuracies: float) -> None:
    for at, accuracy in enumerate(accuracies, start=1):
        ledger.add_epoch(number, MACHINE, epoch(at, accuracy), compile_seconds=0.5 if at == 1 else 0.0)


def test_a_complete_trial_has_its_value_and_its_curve(database: Database, ledger: Ledger) -> None:
    number = begin(ledger, 64, 0.01)
    add_epochs(ledger, number, 0.75, 0.875)
    ledger.complete(number, 0.875)
    (trial,) = plain(database).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.875)
    assert trial.params == {"batch_size": 64, "learning_rate": 0.01}
    assert trial.intermediate_values == {1: 0.75, 2: 0.875}
    assert plain(database).best_value == 0.875


def test_the_summary_of_a_trial_uses_the_names_of_its_epochs(database: Database, ledger: Ledger) -> None:
    """Sums of seconds and steps, the last of the rest, the median of the speed."""
    ledger.add_machine(MACHINE, "fused-xla")
    number = begin(ledger, 64)
    for at, speed in [(1, 400.0), (2, 500.0), (3, 550.0)]:
        figures = epoch(at, 0.5 + at / 8, validation_loss=1.0 / at, examples_per_second=speed)
        ledger.add_epoch(number, MACHINE, figures, compile_seconds=0.5)
    ledger.complete(number, 0.875)
    summary = plain(database).trials[0].user_attrs
    assert len(summary.pop(GUID)) == 32
    assert summary == {
        "train_loss": 0.5,
        "train_value": 0.8,
        "validation_loss": pytest.approx(1 / 3),
        "value": 0.875,
        "machine": MACHINE.fingerprint,
        "train_seconds": 6.0,
        "evaluation_seconds": 0.375,
        "compile_seconds": 1.5,
        "steps": 189,
        "examples_per_second": 500.0,
        "engine": "fused-xla",
        "tensorflow": "2.21.0",
        "epochs": 3,
    }
    assert set(summary) - {"engine", "tensorflow", "epochs"} <= set(epochs_table.columns.keys())


def test_a_pruned_trial_keeps_its_curve(database: Database, ledger: Ledger) -> None:
    number = begin(ledger, 64)
    add_epochs(ledger, number, 0.5)
    ledger.prune(number)
    (trial,) = plain(database).trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.5})
    assert trial.user_attrs["epochs"] == 1
    assert "diverged" not in trial.user_attrs


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverged_trial_is_pruned_with_an_attribute_and_its_last_epoch_is_no_evidence(
    database: Database, ledger: Ledger, loss: float
) -> None:
    number = begin(ledger, 64)
    add_epochs(ledger, number, 0.5)
    ledger.add_epoch(number, MACHINE, epoch(2, 0.99, train_loss=loss), compile_seconds=0.0)
    ledger.diverge(number)
    (trial,) = plain(database).trials
    assert (trial.state, trial.user_attrs["diverged"]) == (TrialState.PRUNED, True)
    assert trial.intermediate_values == pytest.approx({1: 0.5, 2: math.nan}, nan_ok=True)
    assert trial.user_attrs["value"] is None
    assert (trial.user_attrs["epochs"], trial.user_attrs["train_loss"]) == (2, None)


def test_a_trial_that_does_not_fit_is_pruned_under_a_constraint_and_never_the_best(
    database: Database, ledger: Ledger
) -> None:
    for batch_size in (64, 256):
        begin(ledger, batch_size)
    ledger.exceed_memory(1, bytes_over=1024.0)
    ledger.complete(0, 0.5)
    fitting, too_large = plain(database).trials
    assert (too_large.state, too_large.constraints) == (TrialState.PRUNED, {"memory": 1024.0})
    assert too_large.intermediate_values == {}
    assert fitting.constraints == {}
    assert plain(database).best_trial.number == 0


def test_a_failed_trial_says_why(database: Database, ledger: Ledger) -> None:
    number = begin(ledger, 64)
    ledger.fail(number, "the worker ended by signal SIGSEGV")
    (trial,) = plain(database).trials
    assert (trial.state, trial.user_attrs["failure"]) == (TrialState.FAIL, "the worker ended by signal SIGSEGV")


@pytest.mark.parametrize("end", ["complete", "prune", "diverge", "exceed_memory", "fail"])
def test_a_trial_that_ended_leaves_neither_lease_nor_checkpoint(database: Database, ledger: Ledger, end: str) -> None:
    number = begin(ledger, 64)
    ledger.add_checkpoint(number, 1, b"state")
    assert ledger.owned() == [number]
    ends = {
        "complete": lambda: ledger.complete(number, 0.5),
        "exceed_memory": lambda: ledger.exceed_memory(number, 1.0),
        "fail": lambda: ledger.fail(number, "why"),
    }
    ends.get(end, lambda: getattr(ledger, end)(number))()
    assert (count(database, leases_table), count(database, checkpoints_table)) == (0, 0)
    assert ledger.owned() == []
    assert not ledger.begin(number)


def test_an_epoch_that_is_trained_again_takes_the_place_of_the_first_in_optunas_tables_too(
    database: Database, ledger: Ledger, recwarn: pytest.WarningsRecorder
) -> None:
    number = begin(ledger, 64)
    add_epochs(ledger, number, 0.75)
    add_epochs(ledger, number, 0.78125, 0.875)
    ledger.complete(number, 0.875)
    (trial,) = plain(database).trials
    assert trial.intermediate_values == {1: 0.78125, 2: 0.875}
    assert trial.user_attrs["train_seconds"] == 4.0
    assert not recwarn.list


def test_an_epoch_whose_metric_is_not_a_number_is_lost_and_not_diverged() -> None:
    """The loss may be finite where the metric is not; Optuna refuses to complete a trial with such a value."""
    assert epoch(1, math.nan).valueless and not epoch(1, math.nan).diverged


def test_a_released_trial_stays_running_with_its_curve_and_its_checkpoint(database: Database, ledger: Ledger) -> None:
    number = begin(ledger, 64)
    add_epochs(ledger, number, 0.75)
    ledger.add_checkpoint(number, 1, b"state after one epoch")
    ledger.release()
    (trial,) = plain(database).trials
    assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {1: 0.75})
    assert (count(database, leases_table), count(database, checkpoints_table)) == (0, 1)
    assert ledger.owned() == []


def test_a_released_trial_is_begun_by_another_and_goes_on_from_its_checkpoint(
    database: Database, ledger: Ledger
) -> None:
    for batch_size in (16, 64):
        begin(ledger, batch_size)
    ledger.add_checkpoint(1, 3, b"state")
    ledger.release()
    heir = Ledger(database, plain(database))
    assert heir.begin(0) and heir.begin(1)
    assert heir.owned() == [0, 1]
    assert heir.checkpoint(0) is None
    assert heir.checkpoint(1) == (3, b"state")
    heir.complete(1, 0.5)
    assert plain(database).trials[1].state == TrialState.COMPLETE


def test_the_trials_of_a_process_that_lives_are_its_own(database: Database, ledger: Ledger) -> None:
    begin(ledger, 64)
    assert not Ledger(database, plain(database)).begin(0)
    assert ledger.owned() == [0]


def test_a_silent_owner_loses_its_trials_and_one_that_renews_does_not(database: Database, ledger: Ledger) -> None:
    begin(ledger, 64)
    earlier = leases_table.update().values(expires_at=leases_table.c.expires_at - 0.9 * LEASE_SECONDS)
    other = Ledger(database, plain(database))
    for renews, taken in [(True, False), (False, True)]:
        for _ in range(2):
            with database.db.begin() as connection:
                connection.execute(earlier)
            if renews:
                assert ledger.renew() == []
        assert other.begin(0) == taken
    assert ledger.renew() == [0]
    assert ledger.owned() == []


LATE = {
    "epoch": lambda ledger: ledger.add_epoch(0, MACHINE, epoch(1, 0.75), 0.0, checkpoint=b"late"),
    "diverged epoch": lambda ledger: ledger.add_epoch(0, MACHINE, epoch(1, train_loss=math.nan), 0.0),
    "checkpoint": lambda ledger: ledger.add_checkpoint(0, 1, b"late"),
    "complete": lambda ledger: ledger.complete(0, 0.75),
    "prune": lambda ledger: ledger.prune(0),
    "diverge": lambda ledger: ledger.diverge(0),
    "exceed_memory": lambda ledger: ledger.exceed_memory(0, 1.0),
    "fail": lambda ledger: ledger.fail(0, "why"),
}


@pytest.mark.parametrize("write", LATE.values(), ids=LATE.keys())
def test_a_late_write_of_a_trial_that_was_taken_over_is_refused_whole(
    database: Database, ledger: Ledger, write: Callable[[Ledger], None]
) -> None:
    """The writer does not know it yet: only the look inside its own transaction can tell."""
    begin(ledger, 64)
    with database.db.begin() as connection:
        connection.execute(leases_table.update().values(expires_at=0.0))
    heir = Ledger(database, plain(database))
    assert heir.begin(0)
    heir.add_checkpoint(0, 1, b"the heir's")
    with pytest.raises(LeaseLost, match="trial 0"):
        write(ledger)
    (trial,) = plain(database).trials
    assert (trial.state, trial.intermediate_values, set(trial.user_attrs)) == (TrialState.RUNNING, {}, {GUID})
    assert not trial.constraints
    assert count(database, epochs_table) == 0
    assert heir.checkpoint(0) == (1, b"the heir's")
    assert ledger.owned() == []
    with pytest.raises(LeaseLost):
        write(ledger)


def test_deaths_in_training_a_trial_are_counted_over_all_sessions_until_its_next_epoch(
    database: Database, ledger: Ledger
) -> None:
    begin(ledger, 64)
    assert [ledger.count_death(0), ledger.count_death(0)] == [1, 2]
    ledger.release()
    heir = Ledger(database, plain(database))
    heir.begin(0)
    assert heir.count_death(0) == 3
    add_epochs(heir, 0, 0.75)
    assert heir.count_death(0) == 1


def test_an_epoch_that_diverged_and_was_not_ended_is_trained_once_more(database: Database, ledger: Ledger) -> None:
    """Killed between the two writes: nothing is to be learned of it before it is known what it is."""
    begin(ledger, 64)
    add_epochs(ledger, 0, 0.75)
    ledger.add_epoch(0, MACHINE, epoch(2, 0.5, train_loss=math.nan), compile_seconds=0.0)
    (record,) = read_trials(plain(database), ledger.records)
    assert as_trial(record, held=False, max_epochs=4).curve == {1: (0.75, 2.0)}


def test_a_lease_that_expired_and_that_nobody_took_is_its_owners_still(database: Database, ledger: Ledger) -> None:
    """A database that was away for longer than a lease costs nobody the epochs trained meanwhile."""
    begin(ledger, 64)
    with database.db.begin() as connection:
        connection.execute(leases_table.update().values(expires_at=0.0))
    add_epochs(ledger, 0, 0.75)
    assert not Ledger(database, plain(database)).begin(0)
    ledger.complete(0, 0.75)
    assert plain(database).trials[0].value == 0.75


def test_a_trial_that_the_dashboard_has_ended_is_no_longer_written_to(database: Database, ledger: Ledger) -> None:
    begin(ledger, 64)
    plain(database).tell(0, state=TrialState.FAIL)
    with pytest.raises(LeaseLost):
        ledger.complete(0, 0.75)
    assert ledger.owned() == []
    assert plain(database).trials[0].state == TrialState.FAIL


def test_one_process_at_a_time_has_its_turn_at_asking(database: Database, ledger: Ledger) -> None:
    other = Ledger(database, plain(database))
    with ledger.turn() as mine, other.turn(patience=0.05) as others:
        assert mine and not others
    with other.turn(patience=0.0) as others:
        assert others


def test_the_turn_of_a_process_that_fell_silent_passes(database: Database, ledger: Ledger) -> None:
    other = Ledger(database, plain(database))
    with ledger.turn():
        with database.db.begin() as connection:
            connection.execute(turns_table.update().values(expires_at=turns_table.c.expires_at - 2 * TURN_SECONDS))
        with other.turn(patience=0.0) as others:
            assert others
            with ledger.turn(patience=0.0) as mine:
                assert not mine
        # Ended by the other one, and still not this one's.
        with pytest.raises(TurnLost):
            ledger.study.enqueue_trial({"batch_size": 64})
    assert plain(database).trials == []


def test_a_session_that_was_killed_is_taken_up_at_once(tmp_path: Path, empty_database: Path) -> None:
    """`kill -9` between two writes: nothing that was written is lost, and no lease is waited for."""
    path = shutil.copy(empty_database, tmp_path / "killed.db")
    done = subprocess.run([sys.executable, "-c", KILLED_SESSION, path], cwd=Path(__file__).parents[1], timeout=60)
    assert done.returncode == -9
    opened = open_database(str(path), create=False)
    heir = Ledger(opened, plain(opened))
    heir.records.forget_dead_owners()
    assert heir.begin(0) and heir.begin(1)
    assert heir.checkpoint(0) == (1, b"state after one epoch")
    assert heir.checkpoint(1) is None
    assert plain(opened).trials[0].intermediate_values == {1: 0.75}
    opened.db.dispose()


def test_trials_are_counted_as_started_and_as_finished(ledger: Ledger) -> None:
    ledger.study.enqueue_trial({"batch_size": 16, "learning_rate": 0.01})
    assert (ledger.count_started(), ledger.count_finished()) == (0, 0)
    ledger.begin(ledger.study.ask().number)
    begin(ledger, 64)
    ledger.prune(1)
    assert (ledger.count_started(), ledger.count_finished()) == (2, 1)


def test_the_time_spent_is_kept_with_the_study(database: Database, ledger: Ledger) -> None:
    assert ledger.elapsed() == 0.0
    ledger.set_elapsed(12.5)
    assert Ledger(database, plain(database)).elapsed() == 12.5


def test_the_engine_of_each_machine_is_kept_with_the_study(database: Database, ledger: Ledger) -> None:
    ledger.add_machine(MACHINE, "fused")
    ledger.add_machine(MACHINE, "fused-xla")
    assert plain(database).user_attrs["engines"] == {MACHINE.fingerprint: "fused-xla"}
    assert ledger.records.machines() == {MACHINE.fingerprint: MACHINE.describe()}
