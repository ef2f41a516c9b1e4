"""Optuna's samplers and pruners behind the interface: one trial at a time, to its end or until it is pruned.

The rivals of our own search, and the stand-ins for who prefers them: `random`, `grid`, `qmc`, `tpe`, and `gp`, which
needs PyTorch.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.in_optuna.asking import finish_asking
from batchopt.search.in_optuna.ladder import FixedSampler, LadderSampler
from batchopt.search.steps import Infeasibility, Step, Trial

GRID_LEARNING_RATES = 7
"""Two a decade over the default range of three."""

GRID_EXTRA_VALUES = 3
"""The ends and the middle of an extra dimension."""

PRUNER_STARTUP_TRIALS = 5
PRUNER_WARMUP_EPOCHS = 2
"""Optuna prunes from this step on, and our first step is 1: nothing is stopped after its first epoch."""


class OptunaSearch:
    """A study searched by one of Optuna's samplers, pruned by its median pruner.

    Args:
        study: asked for new trials; the values of epochs must be reported to it before they are told here.
        space: what may be tried.
        search: one of `SEARCHES`.
        seed: the study's; each trial is sampled from (seed, its number), so that a resumed study goes on as it would.
        max_epochs: epochs of a whole trial.
        budget_left: whether another trial may be started, asked before each.
        prune: whether trials may be stopped early.
        met: whether a trial is over after a value, whatever epochs are left.
        max_batch_size: the largest that this machine holds, in examples, asked before each trial.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        *,
        search: str,
        seed: int,
        max_epochs: int,
        budget_left: Callable[[], bool],
        prune: bool,
        met: Callable[[float], bool] = lambda value: False,
        max_batch_size: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.stop_reason = ""
        self._max_batch_size = max_batch_size
        self._study = study
        self._space = space
        self._search = search
        self._seed = seed
        self._max_epochs = max_epochs
        self._budget_left = budget_left
        self._prune = prune
        self._met = met
        self._open: dict[int, Step] = {}
        self._idle: list[int] = []
        self._given_up: list[int] = []
        study.pruner = self._pruner()

    def learn(self, trial: Trial) -> None:
        self._open.pop(trial.trial, None)
        if trial.trial in self._idle:
            self._idle.remove(trial.trial)
        if trial.state == "paused" and trial.epochs and self._verdict(trial.trial, trial.epochs):
            # Whoever trained it ended before it could say so.
            self._given_up.append(trial.trial)
        elif trial.state == "paused":
            params = (trial.batch_size, trial.learning_rate, trial.extra)
            self._open[trial.trial] = self._step(trial.trial, *params, trial.epochs, "taken up again")
            self._idle.append(trial.trial)

    def limit(self, batch_size: int | None) -> None:
        self._max_batch_size = lambda: batch_size

    def finish_asking(self, trial: int) -> None:
        # As it would have been asked for.
        trials = self._study.get_trials(deepcopy=False)
        queued = "fixed_params" in trials[trial].system_attrs
        cell = self._cell(trials, trials[trial].params) if self._search == "grid" and not queued else None
        self._study.sampler = self._sampler(trial) if cell is None else FixedSampler(cell)
        finish_asking(self._study, trial, self._space)

    def next(self) -> Step | None:
        if self._idle:
            return self._open[self._idle.pop(0)]
        if not self._budget_left():
            self.stop_reason = "the trials of this study are used up"
            return None
        trials = self._study.get_trials(deepcopy=False)
        # What is queued is Optuna's next trial.
        number = next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))
        waiting = number < len(trials)
        if self._search == "grid" and not waiting:
            cell = self._cell(trials)
            if cell is None:
                self.stop_reason = "the grid is exhausted"
                return None
            self._study.sampler = FixedSampler(cell)
        else:
            self._study.sampler = self._sampler(number)
        trial = self._study.ask(self._space.distributions())
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        step = self._step(trial.number, *self._params(frozen), 0, "queued" if waiting else "new")
        self._open[trial.number] = step
        return step

    def tell(self, trial: int, epoch: int, value: float, seconds: float, *, over: bool = False) -> None:
        step = self._open[trial]
        if over or epoch == self._max_epochs or self._met(value):
            del self._open[trial]
        elif epoch == step.until_epoch:
            if self._verdict(trial, epoch):
                del self._open[trial]
                self._given_up.append(trial)
            else:
                params = (step.batch_size, step.learning_rate, step.extra)
                self._open[trial] = self._step(trial, *params, epoch, "continues")
                self._idle.append(trial)

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        self._open.pop(trial, None)

    def given_up(self) -> list[int]:
        given_up, self._given_up = self._given_up, []
        return given_up

    def _verdict(self, number: int, epoch: int) -> bool:
        """Whether the pruner stops a trial after an epoch."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        return frozen.last_step == epoch and self._study.pruner.prune(self._study, frozen)

    def _step(
        self, trial: int, batch_size: int, learning_rate: float, extra: Mapping[str, Any], from_epoch: int, reason: str
    ) -> Step:
        return Step(
            trial=trial,
            batch_size=batch_size,
            learning_rate=learning_rate,
            from_epoch=from_epoch,
            until_epoch=from_epoch + 1 if self._prune else self._max_epochs,
            extra=dict(extra),
            reason=reason,
        )

    def _params(self, trial: FrozenTrial) -> tuple[int, float, dict[str, Any]]:
        params = trial.params
        extra = {name: value for name, value in params.items() if name in self._space.extra}
        return params[BATCH_SIZE], params[LEARNING_RATE], extra

    def _pruner(self) -> BasePruner:
        if not self._prune:
            return NopPruner()
        return MedianPruner(n_startup_trials=PRUNER_STARTUP_TRIALS, n_warmup_steps=PRUNER_WARMUP_EPOCHS)

    def _sampler(self, number: int) -> BaseSampler:
        trial_seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        base: BaseSampler
        if self._search == "qmc":
            with warnings.catch_warnings():
                # Its interface may change; the version is pinned, and a user can do nothing about it.
                warnings.simplefilter("ignore", ExperimentalWarning)
                base = QMCSampler(seed=self._seed, warn_independent_sampling=False)
        elif self._search == "gp":
            base = GPSampler(seed=trial_seed)
        elif self._search == "tpe":
            base = TPESampler(seed=trial_seed)
        else:
            base = RandomSampler(seed=trial_seed)
        return LadderSampler(base, self._space, self._max_batch_size())

    def _cell(
        self, trials: Sequence[FrozenTrial], of: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any] | None:
        """The next cell of the grid that is not tried, of those with these values; None where there is none left."""
        cells = (cell for cell in self._grid() if not _tried(cell, trials))
        return next((cell for cell in cells if of.items() <= cell.items()), None)

    def _grid(self) -> list[dict[str, Any]]:
        """Every cell of the grid, in an order shuffled by the seed, so that a part of it covers the space."""
        axes = grid_axes(self._space)
        cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        shuffled = [cells[index] for index in np.random.default_rng(self._seed).permutation(len(cells))]
        largest = self._max_batch_size()
        return [cell for cell in shuffled if largest is None or cell[BATCH_SIZE] <= largest]


def grid_axes(space: SearchSpace) -> dict[str, list[Any]]:
    """The values of each dimension on the grid, by name."""
    return {
        BATCH_SIZE: space.grid_batch_sizes().tolist(),
        LEARNING_RATE: space.grid_learning_rates(GRID_LEARNING_RATES).tolist(),
        **{name: _grid_values(distribution) for name, distribution in space.extra.items()},
    }


def _grid_values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    spread = np.geomspace if distribution.log else np.linspace
    values = spread(distribution.low, distribution.high, GRID_EXTRA_VALUES)
    step = distribution.step
    if step is not None:
        steps = sorted({round((value - distribution.low) / step) for value in values})
        return [distribution.low + step * count for count in steps]
    return sorted(set(values.tolist()))


def _tried(cell: dict[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    return any(trial.params == cell for trial in trials)
