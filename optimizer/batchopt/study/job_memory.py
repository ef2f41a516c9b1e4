"""The largest batch size that a job can be given: by its own word, and by what ran out of memory on its machine."""

from __future__ import annotations

import math
import time

from optuna.trial import TrialState

from batchopt.errors import InvalidInput
from batchopt.question.space import BATCH_SIZE, SearchSpace
from batchopt.store.attributes import LEASE, MEMORY
from batchopt.store.ledger import Ledger

LATELY = 10
"""Leases for which a job that was not heard of is still counted on, for what no other has the memory for."""


class JobMemory:
    """What is known of the memory of one study's jobs.

    Args:
        ledger: of the study.
        space: what it may try.
    """

    def __init__(self, ledger: Ledger, space: SearchSpace) -> None:
        self._ledger, self._space = ledger, space
        self._asked: dict[str, tuple[float, float]] = {}
        self._outgrown: dict[str, int] = {}
        self._seen: set[int] = set()

    def largest(self, client: str, machine: str, said: int | None) -> float:
        """The largest batch size to give to a job that asks now, in examples; infinity where none is too large.

        Args:
            client: the job's name.
            machine: what it trains on.
            said: what it says that fits there; None where it does not.

        Raises:
            InvalidInput: that is smaller than the study's smallest.
        """
        most = min(math.inf if said is None else said, self._outgrown.get(machine, math.inf))
        if most < self._space.smallest:
            known = f"largest_batch_size {said}" if said is not None else f"machine {machine!r} ran out of memory"
            raise InvalidInput(f"{known}: the study's smallest batch size is {self._space.smallest}.")
        self._asked[client] = (most, time.monotonic())
        return most

    def largest_of_any(self) -> float:
        """The same of the job with the most memory, of those which have asked lately."""
        return max(self._lately())

    def alike(self) -> bool:
        """Whether all of these can be given the same."""
        return len(self._lately()) == 1

    def learn(self) -> None:
        """What ran out of memory on which machine; where a model has dimensions of its own, these may be the cause."""
        if self._space.extra:
            return
        pruned = self._ledger.transactions.again(
            lambda: self._ledger.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        )
        for trial in pruned:
            if trial.number in self._seen:
                continue
            self._seen.add(trial.number)
            told = trial.user_attrs.get(LEASE)
            if told is not None and trial.constraints.get(MEMORY, 0.0) > 0:
                size, machine = trial.params[BATCH_SIZE], told["machine"]
                self._outgrown[machine] = min(self._outgrown.get(machine, size), size - 1)

    def _lately(self) -> set[float]:
        since = time.monotonic() - LATELY * self._ledger.records.lease_seconds
        self._asked = {client: asked for client, asked in self._asked.items() if asked[1] >= since}
        return {most for most, _ in self._asked.values()}
