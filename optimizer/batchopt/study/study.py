"""The front door: open a study, or resume it; run it; ask what it found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchopt.errors import InvalidInput
from batchopt.events import Listener, Noted, Opened, Starting
from batchopt.goals.kinds import kind_of
from batchopt.machine.capacity import Capacity
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric
from batchopt.question.options import (
    AUTO_SEARCH,
    CONFIRM_SEEDS,
    DEFAULT_SEED,
    Budget,
    Configuration,
    Options,
    check_budget,
    check_confirm_seeds,
)
from batchopt.question.space import SearchSpace
from batchopt.question.task import Task
from batchopt.report.show.dashboard import ShownWhileItGoesOn, bring_up_to_date
from batchopt.report.show.notebook import default_listener
from batchopt.report.show.study_report import StudyReport, read_report
from batchopt.signals import Interruption
from batchopt.store.access import explained
from batchopt.store.address import shown_storage, storage_url
from batchopt.store.folders import file_system
from batchopt.store.making import checked_name, quiet_optuna
from batchopt.store.measurements import measured_on
from batchopt.store.stamp import Stamp, check_program
from batchopt.store.transactions import Transactions
from batchopt.study.counted import check_counted
from batchopt.study.finding import find, refuse_foreign
from batchopt.study.loop import Loop
from batchopt.study.opening import opened_ledger
from batchopt.study.session import Session
from batchopt.study.tries import check_held, check_tries
from batchopt.training.messages import ClusterShare
from batchopt.workers.cluster import joined
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, further_slots, measured, ready_slot, recorded_capacity

if TYPE_CHECKING:
    from batchopt.study.trained_model import On, TrainedModel

Space = SearchSpace | Callable[[int], SearchSpace]
"""A search space, or one made from the number of training examples, for `full`."""

PROVISIONAL_EXAMPLES = 1 << 30
"""Stands for the number of training examples until the data is loaded."""

LOCKED_S = 120.0
"""How long a database that another program has locked is waited for before anything has begun."""


@dataclass(frozen=True)
class Plan:
    """What a run would do; nothing has been written.

    Attributes:
        opened: the study, its machine and engine, and what there is already.
        stamp: the question.
        new: whether the study would be made.
    """

    opened: Opened
    stamp: Stamp
    new: bool


class Study:
    """A question, and the study in a database that answers it.

    Args:
        task: what is trained.
        space: what may be tried.
        goal: what is best.
        name: the study's name in its database.
        storage: a path, or an SQLAlchemy URL.
        options: how it is searched and trained.

    Raises:
        InvalidInput: a space or a target that cannot be.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        goal: Goal | None = None,
        *,
        name: str = "study",
        storage: str | os.PathLike[str] = "sqlite:///studies.db",
        options: Options | None = None,
    ) -> None:
        if not isinstance(task, Task) or not isinstance(goal, Goal | None):
            raise InvalidInput("a study asks a Task and a Goal: Study(Task(...), SearchSpace(...), Goal(...)).")
        if not isinstance(space, SearchSpace) and not callable(space):
            raise InvalidInput(
                f"space {space!r}: give a SearchSpace, or a function from the number of examples to one."
            )
        self.task = task
        self.goal = goal or Goal()
        Metric(task.metric).target(self.goal.target)
        self.name = checked_name(name)
        self.storage = os.fspath(storage) if isinstance(storage, os.PathLike) else storage
        storage_url(self.storage)
        self.options = options or Options()
        self._space = space

    def run(
        self,
        budget: Budget | None = None,
        *,
        tries: Sequence[Configuration] = (),
        listener: Listener | None = None,
        test_set: bool = False,
    ) -> StudyReport:
        """Search until the budget is used up; a study that is there already goes on where it stopped.

        Args:
            budget: totals of the study; 30 trials where None.
            tries: configurations to train first.
            listener: told what happens; in a notebook a bar is shown where there is none.
            test_set: whether the data must have one, as `confirm` will ask for it.

        Raises:
            BatchoptError: something the user can mend; nothing was written if it was there from the start.
            Interrupted: by Ctrl-C or SIGTERM; the same call goes on.
        """
        budget, listener = budget or Budget(), listener or default_listener()
        # Ray sets a handler of SIGTERM; ours comes after it.
        with joined(self.options) as cluster, Interruption() as interruption, ExitStack() as held:
            held.enter_context(explained(self.storage))
            held.enter_context(quiet_optuna())
            workers = held.enter_context(ExitStack())
            slot, plan, capacity = self._prepare(budget, tries, listener, interruption, cluster, workers, probing=True)
            assert slot.ready is not None
            if test_set:
                from batchopt.study.confirming import check_test_set

                check_test_set(slot.ready)
            ledger, stamp = opened_ledger(
                self.name,
                self.storage,
                plan.stamp,
                self.options,
                listener=listener,
                check=interruption.check,
                held=held,
            )
            ledger.check_state(slot.ready.memory.beginning_bytes)
            slots = [slot, *further_slots(slot, self.options, workers)]
            ledger.add_machine(slot.ready.machine, slot.ready.engine, deterministic=self.options.deterministic)
            ledger.add_measurements(
                measured_on(slot.ready.machine, slot.ready.program, slot.ready.engine),
                self.options.memory_limit,
                capacity.step_rows,
                capacity.rows,
                anew=not capacity.recorded,
            )
            ledger.set_accumulate(capacity.accumulate)
            ledger.set_prefer(self.options.prefer)
            listener(plan.opened)
            show = partial(bring_up_to_date, ledger, listener)
            heard = ShownWhileItGoesOn(listener, show)
            session = Session(ledger, stamp, self.options, budget, capacity, listener=heard)
            session.enqueue(tries)
            Loop(session, slots, until=budget.seconds, interruption=interruption, listener=heard).run()
            workers.close()
            evidence = show()
        return self.report() if evidence is None else StudyReport.of(evidence)

    def plan(
        self, budget: Budget | None = None, *, tries: Sequence[Configuration] = (), listener: Listener | None = None
    ) -> Plan:
        """What `run` would do, checked on this machine, nothing written.

        Raises:
            BatchoptError: as `run`.
        """
        budget, listener = budget or Budget(), listener or default_listener()
        with joined(self.options) as cluster, Interruption() as interruption, ExitStack() as workers:
            return self._prepare(budget, tries, listener, interruption, cluster, workers, probing=False)[1]

    def confirm(self, seeds: int = CONFIRM_SEEDS, *, listener: Listener | None = None) -> StudyReport:
        """Train what is recommended again beside the common default, so often each, and open the test set; as `run`."""
        from batchopt.study.confirming import confirm

        check_confirm_seeds(seeds)
        confirm(
            self.task,
            self.report(),
            name=self.name,
            storage=self.storage,
            options=self.options,
            seeds=seeds,
            listener=listener or default_listener(),
        )
        return self.report()

    def train(
        self,
        path: str | os.PathLike[str],
        *,
        on: On = "train",
        force: bool = False,
        listener: Listener | None = None,
    ) -> TrainedModel:
        """Train what is recommended with a seed of its own, and keep the model at `path`, *.keras; as `run`.

        `on="all"` trains on the validation data too; `force` replaces files. What it was trained with stands beside it.
        """
        from batchopt.study.model_file import ModelFile
        from batchopt.study.model_training import train_model

        file = ModelFile(Path(path), force)
        return train_model(
            self.task,
            file,
            name=self.name,
            storage=self.storage,
            options=self.options,
            on=on,
            listener=listener or default_listener(),
        )

    def report(self) -> StudyReport:
        """What the study has found so far, from its database alone.

        Raises:
            StorageError: there is no such database or study.
        """
        return read_report(self.storage, self.name)

    def _prepare(
        self,
        budget: Budget,
        tries: Sequence[Configuration],
        listener: Listener,
        interruption: Interruption,
        cluster: ClusterShare | None,
        workers: ExitStack,
        *,
        probing: bool,
    ) -> tuple[Slot, Plan, Capacity]:
        """Check everything that can be checked without writing, a worker that can train included; `workers` ends it."""
        check_budget(self.options, budget, self.goal.kind)
        early = self._space_for(PROVISIONAL_EXAMPLES)
        if early == self._space_for(PROVISIONAL_EXAMPLES + 1):
            # It does not depend on the data, so what is wrong can be said before anything is started.
            check_tries(tries, early)
        if self.options.checkpoints is not None:
            file_system(self.options.checkpoints)
        url, say = storage_url(self.storage), (lambda line: listener(Noted(line)))
        waiting = Transactions(url, say=say, check=interruption.check, patience=LOCKED_S)
        found = waiting.again(partial(find, self.name, self.storage, self._space_for, self.goal, self.options.seed))
        listener(Starting(self.options.workers or 1))
        options = self.options
        if options.accumulate is None and found:
            options = dataclasses.replace(options, accumulate=found.accumulate)
        setup = first_setup(
            self.task,
            options,
            early,
            goal=self.goal,
            budget=budget,
            known_engines=found.engines if found and not self.options.probe else {},
            cluster=cluster,
        )
        slot = ready_slot(setup, smallest=early.smallest, interruption=interruption, listener=listener)
        workers.enter_context(slot)
        ready = slot.ready
        assert ready is not None
        space = self._space_for(ready.program.train_examples)
        if space.largest > ready.program.train_examples:
            raise InvalidInput(
                f"batch size {space.largest} is above the training set of {ready.program.train_examples} examples. "
                f"Give --batch-sizes up to that, as {space.smallest}..full; full is all of them at once."
            )
        check_tries(tries, space)
        if found:
            check_program(self.name, self._shown_storage, found.stamp, ready.program)
        check_counted(kind_of(self.goal, Metric(ready.program.metric)), ready.machine, self.options)
        stamp = (found and found.stamp) or Stamp(
            space=space,
            goal=self.goal,
            program=ready.program,
            seed=DEFAULT_SEED if self.options.seed is None else self.options.seed,
            search=self.options.search or AUTO_SEARCH,
        )
        if not found:
            directions = kind_of(stamp.goal, stamp.metric).directions
            waiting.again(partial(refuse_foreign, self.name, self.storage, directions))
        capacity = waiting.again(partial(recorded_capacity, ready, space, options, self.storage))
        if probing and self.options.probe is not False:
            capacity = measured(slot, capacity, timed=True, interruption=interruption, listener=listener)
            ready = slot.ready or ready
            check_held(tries, capacity.max_batch_size)
        if probing and self.options.deterministic and capacity.steps is None:
            raise InvalidInput("--deterministic: no step times of this machine are kept yet. Leave --no-probe out.")
        opened = Opened(
            study=self.name,
            storage=self._shown_storage,
            machine=ready.machine,
            engine=ready.engine,
            timings=ready.timings,
            epochs=self.goal.epochs,
            metric=stamp.metric,
            trials=budget.trials,
            finished=found.finished if found else 0,
            running=found.running if found else 0,
            max_batch_size=capacity.held,
            accumulate=capacity.accumulate,
            best=found.best if found else None,
        )
        return slot, Plan(opened, stamp, new=found is None), capacity

    @property
    def _shown_storage(self) -> str:
        return shown_storage(self.storage)

    def _space_for(self, train_examples: int) -> SearchSpace:
        return self._space if isinstance(self._space, SearchSpace) else self._space(train_examples)
