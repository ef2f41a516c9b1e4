"""The studies of one server process: a session for each, opened when somebody first speaks of it.

Nothing is kept here that the database does not have: a server that is killed loses no more than the calls under way.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from batchopt.errors import StorageError, StorageFailed, StudyMismatch, StudyNotFound
from batchopt.service.schemas import Question
from batchopt.store.attributes import SERVICE, WINDOW
from batchopt.store.leases import LeaseLost
from batchopt.store.making import checked_name
from batchopt.store.records import Records
from batchopt.study.finding import differences, remembered
from batchopt.study.jobs import Asking, JobSession, Work

ASKING_PATIENCE_S = 5.0
"""How long a job's request waits for its turn at asking before it is told to come again."""

MOST_TOGETHER = 16
"""Jobs that are answered in one turn: one more waits little longer, and is looked at with what happened meanwhile."""

MOST_SESSIONS, IDLE_S = 32, 600.0
"""Open at once, each with its own connections and posterior; of more those are closed that nobody has spoken of for
so long."""


class Served:
    """One study as this server has it open.

    Args:
        name: of the study.
        question: that it asks.
        session: open.

    Attributes:
        used: when somebody last spoke of it.
        records: for reading.
    """

    def __init__(self, name: str, question: Question, session: JobSession) -> None:
        self.name, self.question, self.session = name, question, session
        self.used = time.monotonic()
        # Of those who look on; the session's own are the search's.
        self.records = Records(session.ledger.db, lease_seconds=session.ledger.records.lease_seconds)
        # A decision takes a while: who asks waits on a thread of its own, and stands in nobody's way but who asks too.
        self.asking = ThreadPoolExecutor(1, thread_name_prefix="asking")
        self._waiting: SimpleQueue[tuple[Asking, float]] = SimpleQueue()

    def ask(self, asking: Asking) -> Future[Work | None]:
        """A job's own open trial, or the next step; None where there is none now, or others are before it."""
        self._waiting.put((asking, time.monotonic()))
        self.asking.submit(self._answer_waiting)
        return asking.answer

    def _answer_waiting(self) -> None:
        """Answer those that wait, together; whoever waited too long is told to come again."""
        together: list[Asking] = []
        with suppress(Empty):
            while len(together) < MOST_TOGETHER:
                asking, since = self._waiting.get_nowait()
                if time.monotonic() - since > ASKING_PATIENCE_S:
                    asking.answer.set_result(None)
                else:
                    together.append(asking)
        if together:
            self.session.ask_together(together, patience=ASKING_PATIENCE_S)
        if self._waiting.empty():
            with suppress(StorageError):
                # Whoever asks next hears of what is wrong.
                self.session.decide_ahead()

    def is_gone(self) -> bool:
        """Whether another program has deleted the study, as far as its database can say."""
        try:
            return self.session.ledger.gone() is not None
        except StorageError:
            return False

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts without a word."""
        return self.session.ledger.records.lease_seconds

    def close(self) -> None:
        """Close it; what jobs hold stays theirs."""
        self.asking.shutdown()
        self.session.release()


class Studies:
    """Opens studies, and keeps them open.

    Args:
        storage: a path, or an SQLAlchemy URL.
    """

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self._open: OrderedDict[str, Served] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, name: str, question: Question) -> bool:
        """Make a study, unless it is there; returns whether it is new.

        Raises:
            StudyMismatch: it is there, and asks something else.
            InvalidInput: a name or a question that cannot be.
        """
        checked_name(name)
        with self._lock:
            new = False
            if name in self._open and self._open[name].is_gone():
                self._open.pop(name).close()
            if name not in self._open:
                self._open[name], new = self._opened(name, question)
            kept = self._open[name].question
        if differing := differences(kept.model_dump(mode="json"), question.model_dump(mode="json")):
            raise StudyMismatch(
                f"study {name!r} has {'; '.join(differing)}. A study keeps its question. "
                "PUT another name, or ask what it asks."
            )
        return new

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[Served]:
        """An open study for a call of it; it is opened where it is not.

        Raises:
            StudyNotFound: there is none of that name, or not any more, or it is a study script's own.
            StorageError: the database cannot be used; the study is opened anew by the next call.
        """
        served = self._open.get(name)
        if served is None:
            served = await run_in_threadpool(self._found, name)
        served.used = time.monotonic()
        try:
            yield served
        except (StorageFailed, LeaseLost) as error:
            gone = await run_in_threadpool(served.is_gone)
            if gone or isinstance(error, StorageFailed):
                # Removed, or away for too long: what this process thinks of it is worth nothing any more.
                await run_in_threadpool(self._forget, served)
            if gone:
                raise StudyNotFound(
                    f"study {name!r} was deleted meanwhile, and nothing of it is left. PUT its question to begin anew."
                ) from None
            raise

    def open(self) -> list[Served]:
        """Those that are open."""
        return list(self._open.values())

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            for served in self._open.values():
                served.close()
            self._open.clear()

    def _found(self, name: str) -> Served:
        with self._lock:
            if name not in self._open:
                self._close_idle()
                self._open[name], _ = self._opened(name, self._kept(name))
            return self._open[name]

    def _forget(self, served: Served) -> None:
        with self._lock:
            if self._open.get(served.name) is served:
                del self._open[served.name]
        served.close()

    def _close_idle(self) -> None:
        for name, served in list(self._open.items()):
            if len(self._open) >= MOST_SESSIONS and time.monotonic() - served.used > IDLE_S:
                del self._open[name]
                served.close()

    def _opened(self, name: str, question: Question) -> tuple[Served, bool]:
        stamp = question.stamp()
        session = JobSession.open(
            name,
            self.storage,
            stamp,
            options=question.options(),
            budget=question.budget(),
            capacity=question.capacity(stamp),
        )
        try:
            asked = question.model_dump(mode="json")
            kept, new = session.remembered(SERVICE, asked)
            if question.window is not None:
                session.remembered(WINDOW, question.window)
            return Served(name, _read(kept), session), new
        except BaseException:
            session.release()
            raise

    def _kept(self, name: str) -> Question:
        stored = remembered(name, self.storage, SERVICE)
        if stored is None:
            raise StudyNotFound(f"study {name!r} was not made by the service. PUT its question, or use another name.")
        return _read(stored)


def _read(kept: object) -> Question:
    try:
        return Question.model_validate(kept)
    except ValidationError:
        raise StorageError("what the database says of the study's question is damaged; restore a copy of it.") from None
