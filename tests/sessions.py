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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from batchopt.events import Event, Noted, TrialEnded
from batchopt.question.goal import Goal
from batchopt.question.options import LEASE_SECONDS, Budget, Options
from batchopt.search.steps import Step
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.session import Session
from written_study import MACHINE, STAMP, epoch

EPOCHS = 8
STATEMENTS = 120
"""A session is killed before one of its first so many statements: in any phase, and never without hope of progress."""

QUESTION = dataclasses.replace(STAMP, goal=Goal(epochs=EPOCHS))


def accuracy(step: Step, at: int) -> float:
    """What a trial comes to after so many epochs."""
    return (1 - 0.5**at) / (1 + abs(step.learning_rate - 0.01) + step.batch_size / 1000)


class Driver:
    """A session, and a formula in the place of workers.

    Args:
        storage: its database; made where it is not there.
        trials: of the study, a total.
        epoch_seconds: what an epoch takes.
        lease_seconds: as `--lease`.
        search: as `--search`.
        say: told each thing that happens, in a line.
        strike: a statement's number, before which the process kills itself; 0 for never.
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
        if strike:
            strike_before(strike)
        self.session = Session.open(
            "mnist",
            storage,
            QUESTION,
            options=options_of(search, lease_seconds),
            budget=Budget(trials=trials, until_known=False),
            listener=self.hear,
        )
        self.session.lost = lambda trial: self.say(f"lost {trial}")

    def run(self) -> None:
        """Go on until the study is done, here and elsewhere."""
        with self.session as session:
            while True:
                try:
                    step = session.ask()
                except TurnLost:
                    self.say("turn lost")
                    continue
                if step is not None:
                    with suppress(LeaseLost):
                        self.train(step)
                elif session.others:
                    time.sleep(0.05)
                else:
                    break
            session.end()

    def train(self, step: Step) -> None:
        """Train a step, from the last checkpoint."""
        begun, state = self.session.state(step)
        assert not begun or state == self.state(step, begun), "a checkpoint of another trial or epoch"
        verdict = "continue"
        for at in range(begun + 1, step.until_epoch + 1):
            time.sleep(self.epoch_seconds)
            self.say(f"trained {step.trial} {at}")
            kept = self.state(step, at) if at < EPOCHS else None
            verdict = self.session.tell(step.trial, MACHINE, epoch(at, accuracy(step, at)), checkpoint=kept)
        assert verdict == ("stop" if step.until_epoch == EPOCHS else "pause") or not self.session.holds(step.trial)
        self.session.let_go(step.trial)

    def hear(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.say(f"{event.state} {event.trial}")
        elif isinstance(event, Noted):
            self.say(event.text)

    def state(self, step: Step, at: int) -> bytes:
        return f"trial {step.trial} of {step.batch_size} after {at}".encode()


def strike_before(number: int) -> None:
    """Have this process kill itself before one of its next statements, whatever database that is for."""
    left = [number]

    def count(*anything: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)


def options_of(search: str, lease_seconds: float) -> Options:
    """Options whose lease may be shorter than what a user is allowed."""
    # Without pruning a trial is one step, held until its end.
    options = Options(search=search, prune=search != "random")
    object.__setattr__(options, "lease", lease_seconds)
    return options


def survive(storage: str, trials: int, search: str, log: Path) -> int:
    """Session after session, each killed by signal 9 before a statement of its own, until one comes to the end.

    Args:
        storage, trials, search: as for `Driver`.
        log: where they say what they do.

    Returns:
        How many were killed.
    """

    def say(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    # What is imported here, once, no session has to import again.
    with tempfile.TemporaryDirectory() as folder:
        Driver(f"sqlite:///{folder}/warm.db", 3, search=search).run()
    for kills in itertools.count():
        child = os.fork()
        if child == 0:
            try:
                strike = random.Random(kills).randint(1, STATEMENTS)
                Driver(storage, trials, search=search, say=say, strike=strike).run()
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
        driver = Driver(
            storage,
            int(trials),
            epoch_seconds=float(seconds),
            lease_seconds=float(lease),
            search=search,
            say=lambda line: print(line, flush=True),
        )
        # Imports take seconds; what several processes do begins when all of them are there.
        driver.say("ready")
        sys.stdin.readline()
        driver.run()
