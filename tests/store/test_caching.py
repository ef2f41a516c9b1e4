"""An unfinished trial is read again where it has changed, whoever has changed it, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest
import sqlalchemy as sa
from batchopt.store.attributes import GUID, SUMMARY, TRAIN_SECONDS
from batchopt.store.database import open_database
from batchopt.store.history import read_trials
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made
from optuna.trial import TrialState
from written_study import MACHINE, SPACE, epoch


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(engine, "before_cursor_execute", note)


def paused(storage: str, count: int) -> Ledger:
    """A study with trials of one epoch that nobody holds."""
    database = open_database(storage, create=True)
    ledger = Ledger(database, found_or_made(database, "mnist"))
    for _ in range(count):
        with ledger.turn():
            number = ledger.study.ask(SPACE.distributions()).number
            assert ledger.begin(number)
        ledger.add_epoch(number, MACHINE, epoch(1), 0.0)
    ledger.release()
    return ledger


def test_what_another_process_changes_is_seen(any_storage: str) -> None:
    """Each kind of change, one after the other, by a process that has its own view; Optuna's plain cache agrees."""
    ledger = paused(any_storage, 4)
    other = open_database(any_storage, create=False)
    plain = optuna.load_study(study_name="mnist", storage=other.storage)
    rival = Ledger(other, plain)

    def agreed() -> list[optuna.trial.FrozenTrial]:
        seen = ledger.study.get_trials(deepcopy=False)
        theirs = plain.get_trials()
        for trial in theirs:
            # What is for other programs is left out.
            trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if key not in SUMMARY}
        assert seen == theirs
        assert read_trials(ledger.study, ledger.records) == read_trials(plain, rival.records)
        return seen

    assert len(agreed()) == 4
    assert rival.begin(1)
    rival.add_epoch(1, MACHINE, epoch(2, 0.75), 0.0)
    assert agreed()[1].intermediate_values == {1: 0.9, 2: 0.75}
    assert len(read_trials(ledger.study, ledger.records)[1].epochs) == 2
    rival.complete(1, 0.75)
    assert agreed()[1].state == TrialState.COMPLETE
    plain.enqueue_trial({"batch_size": 64, "learning_rate": 0.01})
    assert agreed()[4].state == TrialState.WAITING
    begun = plain.ask()
    assert agreed()[4].state == TrialState.RUNNING
    begun.suggest_int("batch_size", 16, 256, log=True)
    assert agreed()[4].params == {"batch_size": 64}
    begun.set_user_attr("note", "mine")
    begun.set_constraint("memory", 1.0)
    assert agreed()[4].user_attrs["note"] == "mine"
    plain.tell(4, state=TrialState.PRUNED)
    rival.begin(0)
    rival.fail(0, "for a reason")
    assert [trial.state.name for trial in agreed()] == ["FAIL", "COMPLETE", "RUNNING", "RUNNING", "PRUNED"]
    assert (ledger.count_started(), ledger.count_finished()) == (5, 3)
    ledger.db.dispose()
    other.db.dispose()


def test_trials_that_have_not_changed_are_not_read_again(any_storage: str) -> None:
    """One look at what has changed, however many there are; a change costs the same with few of them as with many."""
    costs = []
    for count in (3, 12):
        ledger = paused(any_storage, count)
        for _ in range(2):
            read_trials(ledger.study, ledger.records)
        with statements(ledger.db) as nothing_new:
            read_trials(ledger.study, ledger.records)
        assert len(nothing_new) == 1
        assert ledger.begin(0)
        ledger.add_epoch(0, MACHINE, epoch(count), 0.0)
        with statements(ledger.db) as news:
            read_trials(ledger.study, ledger.records)
        costs.append(len(news))
        ledger.release()
        ledger.db.dispose()
    assert costs[0] == costs[1]


def test_an_end_is_kept_with_all_that_summarises_it_or_not_at_all(
    any_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = paused(any_storage, 1)
    assert ledger.begin(0)
    with monkeypatch.context() as broken:
        # The last that is done of it.
        broken.setattr(ledger._checkpoints, "forget", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.complete(0, 0.9)
    trial = ledger.frozen(0)
    assert (trial.state, list(trial.user_attrs)) == (TrialState.RUNNING, [GUID])
    ledger.complete(0, 0.9)
    trial = ledger.frozen(0)
    assert (trial.state, trial.user_attrs["epochs"]) == (TrialState.COMPLETE, 1)
    assert trial.user_attrs.keys() - set(SUMMARY) == {GUID, TRAIN_SECONDS}
    ledger.db.dispose()
