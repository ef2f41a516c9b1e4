"""The studies of one database, each opened when somebody asks for it, from what is kept with it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from batchopt.errors import StudyMismatch, StudyNotFound
from batchopt.machine.capacity import Capacity
from batchopt.service.schemas import Question, differences
from batchopt.store.access import opened
from batchopt.store.attributes import SERVICE
from batchopt.store.history import open_study
from batchopt.store.making import checked_name
from batchopt.study.jobs import JobSession

MOST_SESSIONS = 32
"""Open at once, each with its own connections and posterior; the one longest not asked for is closed for another."""


class Studies:
    """Opens sessions, and keeps them open.

    Args:
        storage: a path, or an SQLAlchemy URL.
    """

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self._sessions: OrderedDict[tuple[str, int | None], JobSession] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, name: str, question: Question) -> bool:
        """Make a study, unless it is there.

        Returns:
            Whether it is new.

        Raises:
            StudyMismatch: it is there, and asks something else.
            InvalidInput: a name or a question that cannot be.
        """
        checked_name(name)
        asked = question.model_dump(mode="json")
        stamp, options, budget = question.stamp(), question.options(), question.budget()
        with JobSession.open(name, self.storage, stamp, options=options, budget=budget) as session:
            stored = session.service
            if stored is None:
                session.remember_service(asked)
                return True
            if differing := differences(stored, asked):
                raise StudyMismatch(
                    f"study {name!r} has {'; '.join(differing)}. A study keeps its question. "
                    "PUT another name, or ask what it asks."
                )
        return False

    def session(self, name: str, largest: int | None = None) -> JobSession:
        """A study, for jobs that hold batch sizes up to `largest`.

        Raises:
            StudyNotFound: there is none, or it is a study script's own.
        """
        with self._lock:
            if (found := self._sessions.get((name, largest))) is not None:
                self._sessions.move_to_end((name, largest))
                return found
            question = self._question(name)
            stamp = question.stamp()
            sizes = [int(size) for size in stamp.space.grid_batch_sizes()]
            capacity = Capacity(sizes, None)
            if largest is not None:
                capacity.record_failure(largest + 1)
            made = JobSession.open(
                name,
                self.storage,
                stamp,
                options=question.options(),
                budget=question.budget(),
                capacity=capacity,
            )
            self._sessions[(name, largest)] = made
            if len(self._sessions) > MOST_SESSIONS:
                _, oldest = self._sessions.popitem(last=False)
                oldest.release()
            return made

    def forget(self, name: str) -> None:
        """Open a study anew, as one that was deleted or damaged is."""
        with self._lock:
            for key in [key for key in self._sessions if key[0] == name]:
                self._sessions.pop(key).release()

    def close(self) -> None:
        """Close all of them; what jobs hold stays theirs."""
        with self._lock:
            for session in self._sessions.values():
                session.release()
            self._sessions.clear()

    def _question(self, name: str) -> Question:
        with opened(self.storage) as database:
            stored: dict[str, Any] | None = open_study(database, name).user_attrs.get(SERVICE)
        if stored is None:
            raise StudyNotFound(f"study {name!r} was not made by the service. PUT its question, or use another name.")
        return Question.model_validate(stored)
