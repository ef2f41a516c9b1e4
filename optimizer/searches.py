"""Which search drives a study, and what it is told of the trials that the study holds already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optimizer.capacity import Capacity
from optimizer.options import AUTO_SEARCH, Budget, Options
from optimizer.search.optuna_search import OptunaSearch
from optimizer.search.scheduled_search import ScheduledSearch
from optimizer.search.scheduler import Scheduler
from optimizer.search.steps import Search
from optimizer.search.trials import Trial, TrialState
from optimizer.seat import Progress
from optimizer.store.history import DIVERGED, OUT_OF_MEMORY, TrialRecord, read_trials
from optimizer.store.ledger import Ledger
from optimizer.store.stamp import Stamp


def make_search(
    ledger: Ledger, stamp: Stamp, options: Options, budget: Budget, capacity: Capacity
) -> tuple[Search, dict[int, Progress]]:
    """The search of a study, fed with its trials; those that nobody trains any more become this process's.

    `capacity` says what this machine holds and what an epoch costs on it.

    Returns:
        The search, and how far each trial is that this process has taken up.
    """
    adopted = dict(ledger.adopt())
    records = read_trials(ledger.study, ledger.records)
    search = options.search or stamp.search
    for record in records:
        for row in record.epochs:
            if row["machine"] == capacity.machine and record.batch_size is not None:
                capacity.trained(record.batch_size, row["train_seconds"], side_by_side=row["side_by_side"])
    unfinished = {record.number: _progress(record) for record in records if record.number in adopted}
    if search == AUTO_SEARCH:
        return _scheduled(ledger, stamp, options, budget, records, adopted, capacity), unfinished
    optuna_search = OptunaSearch(
        ledger.study,
        stamp.space,
        search=search,
        seed=stamp.seed,
        max_epochs=stamp.goal.epochs,
        budget_left=lambda: budget.trials is None or ledger.count_started() < budget.trials,
        prune=options.prune,
        max_batch_size=lambda: capacity.max_batch_size,
    )
    for number, epoch in adopted.items():
        optuna_search.adopt(ledger.frozen(number), epoch)
    return optuna_search, unfinished


def _scheduled(
    ledger: Ledger,
    stamp: Stamp,
    options: Options,
    budget: Budget,
    records: Sequence[TrialRecord],
    adopted: Mapping[int, int],
    capacity: Capacity,
) -> ScheduledSearch:
    epochs = stamp.goal.epochs
    scheduler = Scheduler(
        stamp.space,
        max_epochs=epochs,
        seed=stamp.seed,
        max_trials=budget.trials,
        until=budget.until_known,
        pause=options.prune,
        max_batch_size=capacity.max_batch_size,
        seconds_per_epoch=capacity.seconds_per_epoch(),
    )
    past = [
        _as_trial(record, mine=record.number in adopted, max_epochs=epochs)
        for record in records
        if record.batch_size is not None and record.state != "waiting"
    ]
    return ScheduledSearch(ledger.study, stamp.space, scheduler, past)


def _as_trial(record: TrialRecord, *, mine: bool, max_epochs: int) -> Trial:
    """A stored trial as the scheduler knows it."""
    assert record.batch_size is not None
    assert record.learning_rate is not None
    curve = {
        row["epoch"]: (row["validation_accuracy"], row["train_seconds"])
        for row in record.epochs
        if row["validation_accuracy"] is not None
    }
    if record.state == "running":
        # All its epochs and no end: it died between the two, and its last epoch is trained once more.
        curve.pop(max_epochs, None)
    state, reason = _state(record, mine=mine)
    return Trial(
        record.number, record.batch_size, record.learning_rate, record.extra, curve, state=state, reason=reason
    )


def _state(record: TrialRecord, *, mine: bool) -> tuple[TrialState, str]:
    if record.state == "complete":
        return "complete", ""
    if record.state == "running":
        return ("paused" if mine else "running"), ""
    if record.state == "fail":
        return "infeasible", "failed"
    # What ran out of memory did so on its machine, maybe another one; what this one holds, its capacity says.
    infeasible = {DIVERGED: "diverged", OUT_OF_MEMORY: "failed"}
    return ("infeasible", infeasible[record.note]) if record.note in infeasible else ("stopped", "")


def _progress(record: TrialRecord) -> Progress:
    assert record.batch_size is not None
    assert record.learning_rate is not None
    return Progress(
        record.batch_size,
        record.learning_rate,
        epochs=len(record.epochs),
        accuracy=record.last.get("validation_accuracy"),
        train_seconds=record.train_seconds,
    )
