"""Which search drives a study."""

from __future__ import annotations

from collections.abc import Callable

from batchopt.goals.kinds import kind_of
from batchopt.machine.capacity import Capacity
from batchopt.machine.energy import Power
from batchopt.question.options import AUTO_SEARCH, Budget, Options
from batchopt.search.in_optuna.our_search import ScheduledSearch
from batchopt.search.in_optuna.their_searches import OptunaSearch
from batchopt.search.scheduler import Scheduler
from batchopt.search.steps import Search
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp
from batchopt.store.study_facts import preference


def make_search(
    ledger: Ledger,
    stamp: Stamp,
    options: Options,
    budget: Budget,
    capacity: Capacity,
    value_seconds: Callable[[int], float] | None = None,
    value_power: Power | None = None,
) -> Search:
    """The search of a study; it knows nothing yet of the study's trials.

    `capacity` says what this machine holds and what an epoch costs on it; `value_seconds` what one costs on the machine
    whose epochs are the study's values, where that is another, and `value_power` what that one draws.
    """
    kind = kind_of(stamp.goal, stamp.metric)
    view = kind.view(value_seconds, value_power or capacity.power)
    search = options.search or stamp.search
    if search == AUTO_SEARCH:
        scheduler = Scheduler(
            stamp.space,
            direction="maximize" if kind.sees_scores else stamp.metric.direction,
            max_epochs=stamp.goal.epochs,
            seed=stamp.seed,
            max_trials=budget.trials,
            until=budget.until_known,
            worth=budget.worth,
            pause=options.prune,
            max_batch_size=capacity.max_batch_size,
            # What an epoch took differs from one time to the next; what the probe has kept does not.
            seconds_per_epoch=capacity.seconds_per_epoch(refined=not options.deterministic),
            view=view,
            prefer=preference(ledger.study),
        )
        return ScheduledSearch(ledger.study, stamp.space, scheduler, window=options.window)
    return OptunaSearch(
        ledger.study,
        stamp.space,
        search=search,
        seed=stamp.seed,
        max_epochs=stamp.goal.epochs,
        budget_left=lambda: budget.trials is None or ledger.count_started() < budget.trials,
        # A median of values says nothing of who will be the fastest, and cannot be asked of two objectives.
        prune=options.prune and kind.prunes,
        met=view.met,
        max_batch_size=lambda: capacity.max_batch_size,
    )
