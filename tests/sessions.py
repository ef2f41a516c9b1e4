"""A session that searches and writes as a study does, and trains a formula: hundreds of them fit into a test.

`python sessions.py STORAGE TRIALS [EPOCH_SECONDS] [LEASE_SECONDS] [SEARCH]` runs one when it is told a line;
`python sessions.py kill STORAGE TRIALS SEARCH LOG` runs as many as it takes, each killed before some statement.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa
from batchopt import Goal
from batchopt.machine.capacity import Capacity
from batchopt.question.options import LEASE_SECONDS, Budget, Options
from batchopt.search.steps import Step
from batchopt.store.database import open_database
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from batchopt.store.transactions import Transactions
from batchopt.study.searching import make_search
from batchopt.study.session import SharedStudy
from written_study import MACHINE, SPACE, STAMP, epoch

EPOCHS = 8
STATEMENTS = 120
"""A session is killed before one of its first so many statements: in any phase, and never without hope of progress."""

QUESTION = dataclasses.replace(STAMP, goal=Goal(epochs=EPOCHS))


def accuracy(step: Step, at: int) -> float:
    """What a trial comes to after so many epochs."""
    return (1 - 0.5**at) / (1 + abs(step.learning_rate - 0.01) + step.batch_size / 1000)


class Session:
    """One session.

    Args:
        storage: its database; made where it is not there.
        trials: of the study, a total.
        epoch_seconds: what an epoch takes.
        lease_seconds: as `--lease`.
        search: as `--search`.
        say: told each thing that happens, in a line.
        strike: a statement's number, before which the session kills itself; 0 for never.
    """

    def __init__(
        self,
        storage: str,
        trials: int,
        *,
        epoch_seconds: float = 0.0,
        lease_seconds: float = LEASE_SECONDS,
        search: str = "auto",
        say: Callable[[str], None] = lambda line: None,
        strike: int = 0,
    ) -> None:
        self.say = say
        self.epoch_seconds = epoch_seconds
        database = open_database(storage, create=True)
        self.engine = database.engine
        if strike:
            self._strike_before(strike)
        transactions = Transactions(database.engine.url, say=say)
        self.ledger = Ledger(
            database, found_or_made(database, "mnist"), lease_seconds=lease_seconds, transactions=transactions
        )
        stamp_if_unmade(self.ledger, QUESTION)
        capacity = Capacity([16, 64, 256], None)
        budget = Budget(trials=trials, until_known=False)
        self.search = make_search(self.ledger, QUESTION, Options(search=search), budget, capacity)
        self.shared = SharedStudy(
            self.ledger, self.search, capacity, goal=QUESTION.goal, dimensions=SPACE.distributions()
        )

    def run(self) -> None:
        """Go on until the study is done, here and elsewhere."""
        while True:
            try:
                with self.ledger.turn():
                    step = self.shared.next(self.end)
            except TurnLost:
                self.say("turn lost")
                continue
            if step is None:
                if not self.shared.others:
                    break
                time.sleep(0.05)
                continue
            try:
                self.train(step)
                self.end(self.search.given_up())
            except LeaseLost as lost:
                self.say(f"lost {lost.trial}")
                self.shared.forget(lost.trial)
        self.end(self.search.given_up())
        self.engine.dispose()

    def train(self, step: Step) -> None:
        """Train a step, from the last checkpoint."""
        begun, state = self.ledger.checkpoint(step.trial) or (0, b"")
        assert not begun or state == self.state(step, begun), "a checkpoint of another trial or epoch"
        for at in range(begun + 1, step.until_epoch + 1):
            time.sleep(self.epoch_seconds)
            self.say(f"trained {step.trial} {at}")
            figures = epoch(at, accuracy(step, at))
            state = self.state(step, at) if at < EPOCHS else None
            self.ledger.add_epoch(step.trial, MACHINE, figures, 0.0, checkpoint=state)
            if at > step.from_epoch:
                self.search.tell(step.trial, at, accuracy(step, at), 2.0)
        if step.until_epoch == EPOCHS:
            self.ledger.complete(step.trial, accuracy(step, EPOCHS))
            self.shared.ended(step.trial)
            self.say(f"complete {step.trial}")
        else:
            self.ledger.let_go(step.trial)
            self.shared.forget(step.trial)

    def end(self, trials: Sequence[int]) -> None:
        for trial in trials:
            if trial in self.ledger.owned() or self.ledger.begin(trial):
                self.ledger.prune(trial)
                self.shared.ended(trial)
                self.say(f"pruned {trial}")

    def state(self, step: Step, at: int) -> bytes:
        return f"trial {step.trial} of {step.batch_size} after {at}".encode()

    def _strike_before(self, number: int) -> None:
        left = [number]

        def count(*anything: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(self.engine, "before_cursor_execute", count)


def survive(storage: str, trials: int, search: str, log: Path) -> int:
    """Session after session, each killed by signal 9 before a statement of its own, until one comes to the end.

    Args:
        storage, trials, search: as for `Session`.
        log: where they say what they do.

    Returns:
        How many were killed.
    """

    def say(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    # What is imported here, once, no session has to import again.
    with tempfile.TemporaryDirectory() as folder:
        Session(f"sqlite:///{folder}/warm.db", 3, search=search).run()
    for kills in itertools.count():
        child = os.fork()
        if child == 0:
            try:
                strike = random.Random(kills).randint(1, STATEMENTS)
                Session(storage, trials, search=search, say=say, strike=strike).run()
            except BaseException:  # noqa: BLE001  whatever it is, the child must not go on as its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0, "a session failed"
            return kills
    raise AssertionError


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        print(survive(sys.argv[2], int(sys.argv[3]), sys.argv[4], Path(sys.argv[5])))
    else:
        defaults = ["", "", "0.0", str(LEASE_SECONDS), "auto"]
        storage, trials, seconds, lease, search = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
        session = Session(
            storage,
            int(trials),
            epoch_seconds=float(seconds),
            lease_seconds=float(lease),
            search=search,
            say=lambda line: print(line, flush=True),
        )
        # Imports take seconds; what several processes do begins when all of them are there.
        session.say("ready")
        sys.stdin.readline()
        session.run()
