"""The studies of one server process: a session for each, opened when a job first speaks of it, and one call at a time.

Nothing is kept here that the database does not have: a server that is killed loses no more than the calls under way.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from batchopt.errors import InvalidInput, StorageError, StorageFailed, StorageNotFound, StudyMismatch, StudyNotFound
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.question.options import Budget, Options
from batchopt.report.answer.recommendation import Report
from batchopt.search.steps import Step
from batchopt.service.schemas import PROGRAM, Ask, EpochSaid, Question
from batchopt.store.access import opened
from batchopt.store.attributes import SERVICE
from batchopt.store.history import open_study
from batchopt.store.making import unmade
from batchopt.store.stamp import Stamp
from batchopt.study.clients import ClientSession, Outcome
from batchopt.study.session import Verdict

T = TypeVar("T")

ASK_PATIENCE_S = 5.0
"""How long a job's call waits for this server's turn at asking, where several serve one study."""

LOCKS = 64

LATELY = 10
"""Leases that a job may be silent for, and still be counted on for what no other has the memory for."""

OWNER = "client:"
"""What the owners of clients' leases begin with; no process's name does."""


class Differs(StudyMismatch):
    """A study asks something else.

    Attributes:
        differs: what, by its name in the question: what the study `has`, and what was `asked`.
    """

    def __init__(self, study: str, differs: dict[str, dict[str, Any]]) -> None:
        named = ", ".join(name.replace("_", " ") for name in differs)
        super().__init__(
            f"study {study!r} is there with another {named}. A study keeps its question. Use another name."
        )
        self.differs = differs


class NotServed(StudyMismatch):
    """A study that jobs cannot train: a script does."""


@dataclass(frozen=True)
class Given:
    """A step as it was given to a job.

    Attributes:
        step: what to train; from epoch 0 unless jobs keep the states of trials.
        lease: to be named with whatever is told of it.
        seconds: how long that lasts without a word.
    """

    step: Step
    lease: str
    seconds: float


@dataclass(frozen=True)
class Done:
    """There is no step, and there will be none: why."""

    reason: str


class Served:
    """One study as this server has it open.

    Args:
        name: of the study.
        question: that it asks.
        session: open.
    """

    def __init__(self, name: str, question: Question, session: ClientSession) -> None:
        self.name = name
        self.question = question
        self.session = session
        self._holds: dict[str, tuple[float, float]] = {}
        self._asking = threading.Lock()

    def ask(self, asked: Ask) -> Given | Done | None:
        """A job's own open trial, or the next step; None where there is none now.

        Raises:
            TurnLost, LeaseLost: ask again.
            InvalidInput: the job's machine holds no batch size of the study.
        """
        space, largest = self.session.stamp.space, asked.largest_batch_size
        if largest is not None and largest < space.smallest:
            raise InvalidInput(f"largest_batch_size {largest}: the study's smallest batch size is {space.smallest}.")
        # A decision takes a while. Of all jobs that ask, one at a time stands in the way of those that report.
        with self._asking, self.session.lock:
            client, token = _client(self.name, asked.client_id), secrets.token_hex(16)
            machine = _machine(asked.machine)
            self._holds[client] = (math.inf if largest is None else largest, time.monotonic())
            who = (f"{OWNER}{client}.", token, machine)
            while (found := self.session.ask_for(*who, patience=ASK_PATIENCE_S)) is not None:
                step, owner = found
                if step.batch_size <= self._holds[client][0]:
                    begun = self.session.epochs_kept(step.trial) if self.question.pause else 0
                    return Given(replace(step, from_epoch=begun), owner.removeprefix(OWNER), self.lease_seconds)
                if step.batch_size <= self._largest_held():
                    # For whoever has the memory.
                    self.session.let_go(step.trial)
                    return None
                self.session.out_of_memory(step.trial, machine.fingerprint)
            if not self.session.idle:
                return None
            self.session.end()
            return Done(self.session.stop_reason)

    def _largest_held(self) -> float:
        """The largest batch size that fits with one of the jobs which have asked lately."""
        since = time.monotonic() - LATELY * self.lease_seconds
        self._holds = {client: held for client, held in self._holds.items() if held[1] >= since}
        return max(largest for largest, _ in self._holds.values())

    def hear(self, trial: int, said: EpochSaid) -> Verdict:
        """Keep an epoch, and say what comes after it; raises as `ClientSession.hear`."""
        return self.session.hear(trial, OWNER + said.lease, _figures(said))

    def renew(self, trial: int, lease: str) -> float:
        """Keep a trial its job's, for so many seconds; raises LeaseLost."""
        self.session.keep_for(trial, OWNER + lease)
        return self.lease_seconds

    def let_go(self, trial: int, lease: str) -> None:
        """Let a trial go as it is; raises LeaseLost."""
        self.session.let_go_for(trial, OWNER + lease)

    def complete(self, trial: int, lease: str) -> None:
        """A job's training has ended by itself; raises as `ClientSession.complete_for`."""
        self.session.complete_for(trial, OWNER + lease)

    def end(self, trial: int, lease: str, outcome: Outcome, why: str = "") -> None:
        """A job cannot train its trial; raises LeaseLost."""
        self.session.end_for(trial, OWNER + lease, outcome, why)

    def report(self) -> Report:
        """What the study has found."""
        return self.session.report()

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts without a word."""
        return self.session.ledger.records.lease_seconds


class Studies:
    """The studies of a database, as one server process has them open.

    Args:
        storage: a path or an SQLAlchemy URL.
        options: whose lease counts, and where checkpoints are.
    """

    def __init__(self, storage: str, options: Options) -> None:
        self.storage = storage
        self._options = options
        self._open: dict[str, Served] = {}
        # So many for names without number.
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def put(self, name: str, question: Question) -> bool:
        """Make a study, unless it is there already and asks the same; returns whether it was made.

        Raises:
            Differs: it asks something else.
            StorageError: the database cannot be used.
        """
        with self._opening(name):
            if name in self._open:
                kept: Question | None = self._open[name].question
            else:
                with suppress(StorageNotFound):
                    kept = None
                    kept = self._kept(name)
            if kept is not None:
                _compare(name, kept, question)
                return False
            self._open[name], made = self._opened(name, question)
            return made

    def of(self, name: str, call: Callable[[Served], T]) -> T:
        """What a call of an open study returns; it is opened where it is not.

        Raises:
            StudyNotFound: there is none of that name.
            NotServed: it is a script's.
            StorageError: the database cannot be used; the study is opened anew by the next call.
        """
        with self._opening(name):
            if name not in self._open:
                self._open[name], _ = self._opened(name, self._kept(name))
            served = self._open[name]
        try:
            return call(served)
        except StorageFailed:
            # Removed, or away for too long: what this process thinks of it is worth nothing any more.
            with self._opening(name):
                if self._open.get(name) is served:
                    del self._open[name]
            served.session.release()
            raise

    def release(self) -> None:
        """Close them all; jobs keep their leases, whoever serves them next."""
        for served in self._open.values():
            served.session.release()
        self._open.clear()

    def _opening(self, name: str) -> threading.Lock:
        """What keeps two calls from opening one study, and no call of most others from going on meanwhile."""
        return self._locks[hash(name) % len(self._locks)]

    def _opened(self, name: str, question: Question) -> tuple[Served, bool]:
        stamp = question.stamp()
        options = replace(self._options, search=question.search, prune=question.pause)
        # A session goes on for as long as it is worth it; jobs are told when it is not.
        budget = Budget(trials=question.trials)
        session = ClientSession.open(name, self.storage, stamp, options=options, budget=budget)
        try:
            made, kept = session.ledger.in_turn(lambda: _kept_question(session, question))
            _compare(name, kept, question)
        except BaseException:
            session.release()
            raise
        return Served(name, kept, session), made

    def _kept(self, name: str) -> Question:
        """The question of a study that is there."""
        with opened(self.storage) as database:
            study = open_study(database, name)
            kept, stamp = study.user_attrs.get(SERVICE), Stamp.read(study)
            if kept is not None:
                return _read(kept)
            if unmade(study) if stamp is None else stamp.program.model == PROGRAM:
                # Whoever was making it has died, or is at it.
                raise StudyNotFound(f"study {name!r} is not made yet: put its question.")
        raise NotServed(f"study {name!r} is not one for jobs: a script of its own trains it.")


def _kept_question(session: ClientSession, question: Question) -> tuple[bool, Question]:
    kept = session.ledger.study.user_attrs.get(SERVICE)
    if kept is not None:
        return False, _read(kept)
    session.ledger.study.set_user_attr(SERVICE, question.model_dump())
    return True, question


def _read(kept: object) -> Question:
    try:
        return Question.model_validate(kept)
    except ValidationError:
        raise StorageError("what the database says of the study's question is damaged; restore a copy of it.") from None


def _compare(name: str, has: Question, asked: Question) -> None:
    mine, theirs = has.model_dump(), asked.model_dump()
    differs = {key: {"has": mine[key], "asked": theirs[key]} for key in mine if mine[key] != theirs[key]}
    if differs:
        raise Differs(name, differs)


def _client(study: str, client_id: str) -> str:
    """What a job's leases in a study begin with: of one length for all, so that none begins with another's."""
    return hashlib.sha256(f"{study}\0{client_id}".encode()).hexdigest()[:32]


def _machine(name: str) -> Machine:
    """A job's machine, of which nothing is known but what the job calls it."""
    return Machine(name, "cpu", name, cores=0, memory_bytes=0, versions={})


def _figures(said: EpochSaid) -> Epoch:
    """An epoch as jobs tell it; its steps are not counted yet."""
    diverged = said.diverged or said.value is None
    return Epoch(
        epoch=said.epoch,
        train_loss=math.nan if diverged else said.loss,
        train_value=math.nan,
        validation_loss=said.validation_loss,
        value=math.nan if diverged else float(said.value or 0.0),
        train_seconds=float(said.seconds),
        evaluation_seconds=float(said.evaluation_seconds),
        steps=0,
        examples_per_second=0.0,
        peak_bytes=said.peak_bytes,
        joules=None if said.joules is None else float(said.joules),
    )
