"""What other processes have done to the study, told to the search before each decision.

A trial is this process's while it is on one of its workers, in training or just held there. Put aside, it is nobody's,
and whoever's search wants it next takes it up, on whatever machine. So is one whose process has died.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from optuna.trial import FrozenTrial

from batchopt.events import Progress
from batchopt.machine.capacity import Capacity
from batchopt.search.steps import Search, Step, TrialState
from batchopt.store.history import TrialRecord, as_trial, read_trials
from batchopt.store.leases import TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.records import DamagedCheckpoint
from batchopt.store.stamp import Stamp
from batchopt.store.trial_rows import uncollected

TURN_PATIENCE_S = 0.3
"""How long a turn at asking is waited for before the workers are looked after again."""

LOOK_SECONDS = 1.0
"""How often a process that has nothing to do looks at what the others do."""


@dataclass(frozen=True)
class Owner:
    """Whose a trial becomes.

    Attributes:
        name: unlike any other's.
        attributes: that are written with it, as user attributes of the trial.
    """

    name: str
    attributes: Mapping[str, object]


Owning = Callable[[Step], Owner] | None
"""What names the owner by the step; this process where None."""


class SharedStudy:
    """The study as this process sees it, and its part in it.

    Args:
        ledger: of the study.
        search: what decides; it is fed here with what the study holds.
        capacity: told of the epochs that were trained on this machine in earlier sessions.
        stamp: the study's.

    Attributes:
        progress: how far each unfinished trial is, by number.
        others: the numbers of the trials that other processes hold.
    """

    def __init__(self, ledger: Ledger, search: Search, capacity: Capacity, stamp: Stamp) -> None:
        self.progress: dict[int, Progress] = {}
        self.others: set[int] = set()
        self._ledger = ledger
        self._search = search
        self._capacity = capacity
        self._stamp = stamp
        self._dimensions = set(stamp.space.distributions())
        self._seen: dict[int, tuple[TrialState, int]] = {}
        self._over: set[int] = set()
        self._metered: dict[int, int] = {}
        self._looked: float | None = None

    def next(self, give_up: Callable[[Sequence[int]], None], owner: Owning = None, *, look: bool = True) -> Step | None:
        """Ask the search, which knows by then what the others have done, and own the trial of its step.

        To be called in this process's turn.

        Args:
            give_up: ends trials; told which ones the search gives up by what it has just learned, before it is asked.
            owner: names whose the trial is to be; this process's where None.
            look: whether to look first at what the others have done; not where that was done in this very turn.

        Returns:
            None where there is no step now.

        Raises:
            TurnLost: the turn is another's by now, and nothing was begun.
        """
        while True:
            given_up, step = self._ledger.transactions.again(partial(self._ask, look))
            look = True
            if given_up:
                for trial in given_up:
                    # Looked at afresh, should it not end.
                    self.forget(trial)
                give_up(given_up)
                continue
            if step is None:
                return None
            begun = step.trial in self._ledger.owned()
            try:
                begun = begun or self._begin(step, owner)
            finally:
                if not begun:
                    # Ended by another program in the meantime, or the turn is lost.
                    self.forget(step.trial)
            if begun:
                self.progress.setdefault(step.trial, Progress(step.batch_size, step.learning_rate))
                return step

    def decide_ahead(self, give_up: Callable[[Sequence[int]], None]) -> dict[int, str]:
        """Make the next step's trial, if it is a new one, for whoever asks next to take up at once.

        It is nobody's until then, as one whose process died before it began: a server that is killed leaves no more.
        To be called in this process's turn, where somebody is about to ask: what is told meanwhile is not heard.

        Args:
            give_up: as in `next`.

        Returns:
            Why that trial was chosen, by its number; empty where there is none.
        """
        self._ledger.transactions.again(self._look)
        owned = self._ledger.owned()
        if any(
            not each.epochs and trial not in self.others and trial not in owned for trial, each in self.progress.items()
        ):
            # There is one.
            return {}
        given_up, step = self._ledger.transactions.again(partial(self._ask, False))
        for trial in [*given_up, *([] if step is None else [step.trial])]:
            self.forget(trial)
        if given_up:
            give_up(given_up)
        return {} if step is None or step.from_epoch else {step.trial: step.reason}

    def _begin(self, step: Step, owner: Owning) -> bool:
        if owner is None:
            return self._ledger.begin(step.trial)
        named = owner(step)
        return self._ledger.begin(step.trial, named.name, named.attributes)

    def may_look(self) -> bool:
        """Whether the last look at what the others do is `LOOK_SECONDS` ago."""
        return self._looked is None or time.monotonic() - self._looked >= LOOK_SECONDS

    def left(self) -> list[int]:
        """The unfinished trials that this process may end."""
        with contextlib.suppress(TurnLost), self._ledger.turn(TURN_PATIENCE_S) as mine:
            if mine:
                return self.unheld()
        return self._ledger.owned()

    def unheld(self) -> list[int]:
        """The numbers of the unfinished trials that no other process holds; to be asked in this process's turn."""
        self._ledger.transactions.again(self._look)
        return [number for number in self.progress if number not in self.others]

    def restored(self, step: Step, say: Callable[[str], None]) -> tuple[int, bytes | None]:
        """From where a trial goes on that no worker holds; without a checkpoint its epochs come out as they did."""
        if not self.progress[step.trial].epochs:
            return 0, None
        try:
            epoch, content = self._ledger.checkpoint(step.trial) or (0, None)
        except DamagedCheckpoint as damage:
            say(f"trial {step.trial}: its checkpoint is damaged ({damage}); it starts over")
            return 0, None
        return (epoch, content) if epoch < step.until_epoch else (0, None)

    def remember(self, record: TrialRecord) -> None:
        """How far a trial is that is held here from now on."""
        self.progress[record.number] = _progress(record)

    def ended(self, trial: int) -> Progress:
        """A trial of this process has ended; the search knows. Returns what it came to."""
        self._over.add(trial)
        return self.progress.pop(trial)

    def forget(self, trial: int) -> None:
        """A trial that was lost, or let go, is looked at afresh."""
        self._seen.pop(trial, None)

    def _ask(self, look: bool) -> tuple[list[int], Step | None]:
        """What the search gives up, or else its next step."""
        # What a search had begun when its connection broke is found here too, as a trial that nobody trains.
        if look:
            self._look()
        given_up = self._search.given_up()
        return given_up, None if given_up else self._search.next()

    def _look(self) -> None:
        """Tell the search what has changed since the last look."""
        self._ledger.records.forget_dead_owners()
        # Leases first: a trial that is let go after this look is found at the next one.
        leased, mine = self._ledger.records.leased(), set(self._ledger.owned())

        def news(trial: FrozenTrial) -> bool:
            return trial.number not in mine and trial.number not in self._over

        self.others = set()
        with uncollected():
            self._learn(leased, news)
        self._looked = time.monotonic()

    def _learn(self, leased: Container[int], news: Callable[[FrozenTrial], bool]) -> None:
        """Tell the search of the trials that may have changed, given the ids of those that somebody holds."""
        found = read_trials(self._ledger.study, self._ledger.records, news)
        if self._finish_asking([record for record in found if record.trial_id not in leased]):
            found = read_trials(self._ledger.study, self._ledger.records, news)
        for record in found:
            if self._looked is None:
                self._remember_costs(record)
            if record.state != "waiting" and self._whole(record):
                self._tell(record, held=record.trial_id in leased)

    def _whole(self, record: TrialRecord) -> bool:
        return self._dimensions <= record.params.keys()

    def _finish_asking(self, free: Sequence[TrialRecord]) -> bool:
        """Whoever asked for these died before they had all their parameters; returns whether there are such."""
        halves = [record.number for record in free if record.state == "running" and not self._whole(record)]
        for number in halves:
            self._search.finish_asking(number)
        return bool(halves)

    def _tell(self, record: TrialRecord, *, held: bool) -> None:
        goal, stamp = self._stamp.goal, self._stamp
        trial = as_trial(
            record,
            held=held,
            max_epochs=goal.epochs,
            target=stamp.target,
            counts=goal.value if goal.target is None else None,
            sign=stamp.metric.sign,
        )
        if trial.state == "running":
            self.others.add(trial.trial)
        if record.state == "running":
            self.progress[trial.trial] = _progress(record)
        else:
            self._over.add(trial.trial)
            self.progress.pop(trial.trial, None)
        if self._seen.get(trial.trial) != (trial.state, trial.epochs):
            self._hear_power(record)
            self._search.learn(trial)
            # Afterwards, so that what breaks in the middle is told again.
            self._seen[trial.trial] = (trial.state, trial.epochs)

    def _hear_power(self, record: TrialRecord) -> None:
        """What jobs draw, where this process has no machine of its own: as of their seconds, all of them count."""
        if self._capacity.machine or record.batch_size is None:
            return
        for row in record.epochs[self._metered.get(record.number, 0) :]:
            self._capacity.power.tell(record.batch_size, row.get("joules"), row["train_seconds"])
        self._metered[record.number] = len(record.epochs)

    def _remember_costs(self, record: TrialRecord) -> None:
        for row in record.epochs:
            if row["machine"] == self._capacity.machine and record.batch_size is not None:
                self._capacity.record_epoch(
                    record.batch_size,
                    row["train_seconds"],
                    side_by_side=row["side_by_side"],
                    joules=row.get("joules"),
                )


def _progress(record: TrialRecord) -> Progress:
    assert record.batch_size is not None
    assert record.learning_rate is not None
    return Progress(
        record.batch_size,
        record.learning_rate,
        epochs=len(record.epochs),
        value=record.last.get("value"),
        train_seconds=record.train_seconds,
    )
