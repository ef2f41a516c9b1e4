"""`--confirm`: train what is recommended again, beside what else would do, and open the test set once.

A run is trained as a trial is: for all epochs, or until it is at the target where the goal has one.
Its runs are no trials: no search sees them, and nothing is decided by them. They take turns, A B C A B C, so that a
machine that becomes slower becomes so for all; those of one number begin with the same weights. One process confirms a
study at a time. What was confirmed is kept, and is not trained, nor looked at on the test set, a second time.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batchopt.errors import DataError, DeviceError, StorageError
from batchopt.events import Confirmed, Confirming, Listener, Noted, Starting
from batchopt.goals.crossing import epochs_to_target
from batchopt.machine.capacity import Capacity
from batchopt.measured import Epoch
from batchopt.optuna_private import study_id_of
from batchopt.question.metric import Target
from batchopt.question.options import Budget, Configuration, Options
from batchopt.question.task import Task
from batchopt.report.answer.confirmation import from_common
from batchopt.report.answer.recommendation import Report
from batchopt.signals import Interruption
from batchopt.store.attributes import ACCUMULATE, ENGINES
from batchopt.store.confirmations import ROLES, ConfirmationRun, Role, plan_of
from batchopt.store.database import open_database
from batchopt.store.history import open_study
from batchopt.store.leases import Turns
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp, check_program
from batchopt.store.transactions import Transactions
from batchopt.study.single_run import SingleRun
from batchopt.training.messages import EpochDone, OpenedTest, OpenTest, Ready, Train
from batchopt.training.seeds import confirmation_seed
from batchopt.workers.cluster import joined
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, known_capacity, ready_slot

if TYPE_CHECKING:
    from batchopt.search.advice import Estimate


KEEP_TURN_S = 2.0
"""How often the turn at confirming is renewed; it is another's after ten seconds of silence."""

LOOK_S = 0.5
"""Between two looks at whether another process has confirmed."""


@dataclass(frozen=True)
class Planned:
    """A configuration that is to be confirmed, and what it is to the recommendation."""

    role: Role
    configuration: Configuration


def confirm(
    task: Task, report: Report, *, name: str, storage: str, options: Options, seeds: int, listener: Listener
) -> None:
    """Confirm what a study recommends, as far as that was not done already.

    Args:
        task: what is trained.
        report: the study's; without a complete trial, or one at the target, there is nothing to confirm.
        name, storage: where the study is.
        options: how it is trained.
        seeds: how often each configuration is trained, in total.
        listener: told what happens.

    Raises:
        BatchoptError: something the user can mend; the runs that were finished are kept.
        Interrupted: by a signal; the same call goes on.
    """
    if report.advised is None:
        lacking = "is complete" if report.target is None else f"reached {report.target}"
        listener(Noted(f"nothing to confirm: no trial {lacking}"))
        return
    with joined(options) as cluster, Interruption() as interruption, ExitStack() as held:
        database = open_database(storage, create=True)
        held.callback(database.db.dispose)
        transactions = Transactions(database.db.url, say=lambda line: listener(Noted(line)), check=interruption.check)
        again = transactions.again
        ledger = Ledger(database, again(lambda: open_study(database, name)), transactions=transactions)
        stamp = again(lambda: Stamp.read(ledger.study))
        assert stamp is not None, "what has a report has a stamp"
        kept = again(lambda: ledger.study.user_attrs)
        # One worker has the machine to itself, so that seconds mean something.
        options = dataclasses.replace(options, workers=None)
        if options.accumulate is None:
            options = dataclasses.replace(options, accumulate=kept.get(ACCUMULATE, False))
        setup = first_setup(
            task,
            options,
            stamp.space,
            goal=stamp.goal,
            budget=Budget(),
            known_engines=kept.get(ENGINES, {}),
            cluster=cluster,
        )

        def start() -> tuple[Slot, Capacity]:
            """A worker, and what is known of its machine."""
            listener(Starting(1))
            slot = ready_slot(setup, smallest=stamp.space.smallest, interruption=interruption, listener=listener)
            held.enter_context(slot)
            ready = slot.ready
            assert ready is not None
            check_program(name, database.url, stamp, ready.program)
            check_test_set(ready)
            ledger.add_machine(ready.machine, ready.engine)
            known = partial(known_capacity, slot, stamp.space, options, storage)
            return slot, again(lambda: known(interruption=interruption, listener=listener))

        turns = Turns(database.db, -study_id_of(ledger.study), ledger.owner, lease_seconds=math.inf)
        _Confirmation(ledger, turns, stamp, report, seeds, interruption, listener).run(start)


def check_test_set(ready: Ready) -> None:
    """Refuse data without a test set; raises DataError."""
    if not ready.has_test:
        raise DataError("--confirm: the data has no test set. Load it with Dataset(..., test=...).")


def planned(report: Report, begun: Sequence[ConfirmationRun], max_batch_size: int | None) -> list[Planned]:
    """What is to be confirmed: what is recommended, the fastest that is as good, and batch size 32 at its best rate.

    Args:
        report: with a recommendation.
        begun: the runs that there are of its confirmation; what they have begun with they go on with.
        max_batch_size: what the machine holds, in examples; None for no limit.

    Returns:
        Each configuration once, the recommended one first; for 32 the nearest there is.
    """
    advice = report.advised
    assert advice is not None, "there is something to confirm"
    known = {run.role: Planned(run.role, _configuration(run)) for run in begun}
    if any(run.run > 0 for run in begun):
        # They take turns, so that all of them have had one.
        return [known[role] for role in ROLES if role in known]
    wanted = [
        Planned("recommended", _configuration(advice.recommended)),
        Planned("fastest", _configuration(advice.fastest)),
    ]
    there = [row for row in advice.by_batch_size if max_batch_size is None or row.batch_size <= max_batch_size]
    nearest = min(there, key=lambda row: from_common(row.batch_size), default=None)
    wanted += [] if nearest is None else [Planned("reference", _configuration(nearest))]
    found: list[Planned] = []
    for plan in wanted:
        each = known.get(plan.role, plan)
        # The fastest may be the best one, and either may be the reference.
        if each.configuration not in [other.configuration for other in found]:
            found.append(each)
    return found


def _configuration(row: Estimate | ConfirmationRun) -> Configuration:
    return Configuration(row.batch_size, row.learning_rate, dict(row.extra))


def training_seconds(trained: Sequence[Epoch], target: Target | None) -> float:
    """Of a run that has ended: of all its epochs, or until it was at the target, interpolated as for trials.

    Args:
        trained: its epochs; the last one is the first at the target, if any is.
        target: of the validation metric; None where there is none.
    """
    spent = sum(epoch.train_seconds for epoch in trained)
    if target is None:
        return spent
    epochs = epochs_to_target(target, {epoch.epoch: (epoch.value, 0.0) for epoch in trained})
    return spent if epochs is None else spent - (len(trained) - epochs) * trained[-1].train_seconds


class _Confirmation:
    """Trains and keeps the runs that are missing; arguments as in `confirm`."""

    def __init__(
        self,
        ledger: Ledger,
        turns: Turns,
        stamp: Stamp,
        report: Report,
        seeds: int,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        assert report.advised is not None
        self._ledger = ledger
        self._turns = turns
        self._renewed = 0.0
        self._stamp = stamp
        self._report = report
        self._plan = plan_of(report.advised.recommended.params)
        self._seeds = seeds
        self._interruption = interruption
        self._listener = listener

    def run(self, start: Callable[[], tuple[Slot, Capacity]]) -> None:
        """Go on until nothing is missing; `start` gives a worker, where one is needed."""
        self._await_turn()
        try:
            kept = self._kept()
            begun = [run for run in kept if run.plan == self._plan]
            roles = {run.role for run in begun}
            if any(run.run > 0 for run in begun) and len(begun) >= len(roles) * self._seeds:
                self._listener(Noted("confirmed already: what was found is kept, the test set stays closed"))
                return
            if kept and not begun:
                when = f"one was confirmed after {kept[-1].trials} trials"
                self._listener(Noted(f"the recommendation has changed since {when}; the new one is confirmed too"))
            slot, self._capacity = start()
            self._train_missing(slot, planned(self._report, begun, self._capacity.max_batch_size))
        finally:
            with suppress(StorageError):
                # Where nothing can be written any more, the turn expires by itself.
                self._ledger.transactions.again(self._turns.end)

    def _train_missing(self, slot: Slot, plans: Sequence[Planned]) -> None:
        of = len(plans) * self._seeds
        for number in range(self._seeds):
            for at, plan in enumerate(plans):
                # It may have expired while a worker was started; whoever has it now goes first.
                self._await_turn()
                kept = self._kept()
                if any((run.plan, run.role, run.run) == (self._plan, plan.role, number) for run in kept):
                    continue
                same = [run for run in kept if run.run == number and _configuration(run) == plan.configuration]
                run = same[0] if same else self._trained(slot, plan, number)
                run = dataclasses.replace(run, plan=self._plan, role=plan.role, trials=self._ledger.count_finished())
                self._ledger.transactions.again(lambda run=run: self._ledger.confirmations.add(run))  # type: ignore[misc]
                self._listener(Confirmed(run, self._stamp.metric, self._seeds, number * len(plans) + at + 1, of))

    def _trained(self, slot: Slot, plan: Planned, number: int) -> ConfirmationRun:
        """Train one run, again where its worker dies."""
        single = SingleRun(
            slot,
            "a run that confirms",
            then="it begins again",
            too_large=partial(_too_large, plan.configuration.batch_size),
            interruption=self._interruption,
            listener=self._listener,
            tick=self._keep_turn,
        )
        return single.tried(lambda: self._attempt(single, plan, number))

    def _attempt(self, single: SingleRun, plan: Planned, number: int) -> ConfirmationRun:
        configuration, epochs, target = plan.configuration, self._stamp.goal.epochs, self._stamp.target
        single.ask(
            Train(
                trial=number,
                study_seed=self._stamp.seed,
                batch_size=configuration.batch_size,
                learning_rate=configuration.learning_rate,
                extra=configuration.extra,
                from_epoch=0,
                until_epoch=epochs,
                purpose="confirm",
                until=target,
                micro_batch_size=self._capacity.micro_batch_size(configuration.batch_size),
            )
        )
        trained: list[Epoch] = []
        tested: OpenedTest | None = None
        self._listener(Confirming(plan.role, configuration, number, 0, epochs))
        while tested is None and not (trained and trained[-1].valueless):
            answer = single.heard()
            if isinstance(answer, EpochDone):
                trained.append(answer.figures)
                self._listener(Confirming(plan.role, configuration, number, len(trained), epochs))
                reached = target is not None and target.met(answer.figures.value)
                if (reached or answer.stopped or len(trained) == epochs) and not answer.figures.valueless:
                    single.ask(OpenTest(number))
            elif isinstance(answer, OpenedTest):
                tested = answer
        assert single.slot.ready is not None
        return ConfirmationRun(
            plan=self._plan,
            role=plan.role,
            run=number,
            trials=0,
            machine=single.slot.ready.machine.fingerprint,
            batch_size=configuration.batch_size,
            learning_rate=configuration.learning_rate,
            extra=configuration.extra,
            seed=confirmation_seed(self._stamp.seed, number),
            epochs=len(trained),
            train_seconds=training_seconds(trained, target),
            validation_value=None if tested is None else trained[-1].value,
            test_loss=None if tested is None else tested.loss,
            test_value=None if tested is None else tested.value,
        )

    def _await_turn(self) -> None:
        waiting = False
        while not self._ledger.transactions.again(self._turns.take):
            if not waiting:
                self._listener(Noted("another process confirms; waiting for what it finds"))
            waiting = True
            self._interruption.check()
            time.sleep(LOOK_S)

    def _keep_turn(self) -> None:
        if time.monotonic() - self._renewed > KEEP_TURN_S:
            self._ledger.transactions.again(self._turns.take)
            self._renewed = time.monotonic()

    def _kept(self) -> list[ConfirmationRun]:
        return self._ledger.transactions.again(self._ledger.confirmations.all)


def _too_large(batch_size: int, why: str) -> DeviceError:
    return DeviceError(
        f"--confirm: batch size {batch_size} ran out of memory: {why}. The runs that were finished are kept; the same "
        "command goes on where there is more."
    )
