"""Start, continue or stop: how the seconds are spent.

Whenever a worker is free, `next` says what it does: start a new configuration, or take up a paused trial where it was
left, up to its next rung (a quarter, a half, all epochs). Then everything is thought over again, in `decision.py`. A
decision follows from (seed, trials, their values) alone: a scheduler that was rebuilt from a database goes on as the
one that lived through it. Nothing here knows what training is; a table, a simulator or a cluster can stand behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from batchopt.errors import BatchoptError, InvalidInput
from batchopt.question.goal import Prefer
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.advice import Advice, Recommendation
from batchopt.search.choices import Candidate, Choices, choices_of
from batchopt.search.costs import Timings
from batchopt.search.decision import Rule, enough, pick
from batchopt.search.opening import opening
from batchopt.search.run_lengths import RunLengths
from batchopt.search.steps import Infeasibility, Step, Trial, step_of
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.threads import on_one_thread
from batchopt.search.trials import Trials, rungs
from batchopt.search.view import Standing, View

MAX_PAUSED = 24
"""Paused trials beyond so many are given up, the least promising first: each keeps a checkpoint."""


class Scheduler:
    """Decides what is trained next, how far, and when enough is known.

    Args:
        space: what may be tried.
        max_epochs: epochs of a whole trial.
        direction: of the values, "maximize" or "minimize".
        seed: of the study.
        seconds_per_epoch: batch size -> seconds, where the machine was probed; else learned from what is told.
        max_trials: how many configurations may be started; None for no limit.
        until: whether the study ends by itself when no step promises enough; `stop_reason` then says why.
        max_batch_size: that this machine holds, in examples, where known; it falls when a trial runs out of memory.
        pause: whether trials may be paused at rungs; else each is trained to its end at once.
        view: how a goal wants the values to be seen; the best value after all epochs where None.
        worth: what a second of training must be expected to gain, in the units of the values; below it the study ends.
        prefer: what is recommended, and trained to its end before the study is over.

    Raises:
        InvalidInput: no epochs, no trials, another direction, or a worth that is not above 0 or comes with a view.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        max_epochs: int,
        direction: Literal["maximize", "minimize"] = "maximize",
        seed: int = 0,
        seconds_per_epoch: Callable[[int], float] | None = None,
        max_trials: int | None = None,
        until: bool = True,
        max_batch_size: int | None = None,
        pause: bool = True,
        view: View | None = None,
        worth: float | None = None,
        prefer: Prefer = "balanced",
    ) -> None:
        if max_epochs < 1:
            raise InvalidInput(f"max_epochs is {max_epochs}. Give at least 1.")
        if max_trials is not None and max_trials < 1:
            raise InvalidInput(f"max_trials is {max_trials}. Give at least 1, or None for no limit.")
        if direction not in ("maximize", "minimize"):
            raise InvalidInput(f"direction is {direction!r}. Give 'maximize' or 'minimize'.")
        if worth is not None and not (worth > 0 and (view is None or view.values)):
            raise InvalidInput(f"worth is {worth:g}. Give a gain per second above 0, for the best value alone.")
        self.stop_reason = ""
        self.max_batch_size = max_batch_size
        self.max_trials = max_trials
        self._space = space
        self._max_epochs = max_epochs
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._seed = seed
        self._probed = seconds_per_epoch
        self._until = until
        self._worth = worth
        self._prefer = prefer
        self._view = view or View()
        self._cube = Cube(space.distributions())
        self._rungs = rungs(max_epochs) if pause else [max_epochs]
        self._trials = Trials()
        self._timings = Timings()
        self._queue: list[dict[str, Any]] = []
        self._before: Choices | None = None

    @property
    def may_start(self) -> bool:
        """Whether `max_trials` leaves another configuration to start."""
        return self.max_trials is None or len(self._trials) < self.max_trials

    @on_one_thread
    def next(self) -> Step | None:
        """What a free worker does now.

        Returns:
            A step; None where there is none. Then `stop_reason` says why in one line, or is empty where this call only
            has to wait until a step that is under way was told.
        """
        trials, standing = self._trials.in_order(), self._standing()
        self.stop_reason = ""
        waiting = [trial for trial in trials if trial.state == "paused" and not standing.hopeless(trial)]
        interrupted = next((t for t in waiting if t.epochs not in self._rungs), None)
        if interrupted is not None:
            return self._continue(interrupted, None, "taken up again" if interrupted.epochs else "queued")
        may_start = self.may_start
        while self._queue and may_start:
            params = self._queue.pop(0)
            if self._fits(params[BATCH_SIZE]):
                return self._start(params, None, "queued")
        # The last trial waits for the end: it is then of what is recommended, where that never got to its end.
        one_left = may_start and len(trials) + 1 == self.max_trials
        choices, picked, why = self._picked(may_start and not one_left)
        if choices is None:
            return self._blind(may_start)
        if picked is None:
            if any(trial.state == "running" for trial in trials):
                return None
            if recommended := self._recommended():
                return recommended
            if one_left:
                choices, picked, why = self._picked(may_start)
        if choices is None or picked is None:
            self.stop_reason = why
            return None
        option, rule = picked
        gain = option.gain if choices.complete and standing.gains_value else None
        if option.trial is None:
            return self._start(option.params, gain, f"new, {rule.name}")
        return self._continue(self._trials[option.trial.trial], gain, f"continues, {rule.name}")

    def tell(self, trial: int, epoch: int, value: float, seconds: float = 0.0, *, over: bool = False) -> None:
        """One epoch of a trial was trained.

        Args:
            trial: as given by `Step.trial`, or as assigned.
            epoch: counted from 1.
            value: after this epoch; one that is not finite means that training diverged.
            seconds: what the epoch took; 0 where it was not measured.
            over: whether training has ended by itself, so that this value is its last.

        Raises:
            InvalidInput: a trial that is not known, or an epoch outside 1 to `max_epochs`.
        """
        told = self._known(trial)
        if not 1 <= epoch <= self._max_epochs:
            raise InvalidInput(f"trial {trial}: epoch {epoch} is outside 1 to {self._max_epochs}.")
        if told.state == "infeasible":
            return
        if not math.isfinite(value):
            self.infeasible(trial, "diverged")
            return
        told.curve[epoch] = (float(value), float(seconds))
        self._timings.note(told)
        if self._view.met(value):
            told.state, told.until_epoch = "complete", 0
        elif over or epoch == self._max_epochs:
            told.state, told.until_epoch = self._view.at_the_end, 0
            if told.state == "complete":
                told.stay(self._max_epochs)
        elif told.state == "running" and epoch >= told.until_epoch:
            told.state, told.until_epoch = "paused", 0

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        """A trial cannot be trained further.

        Args:
            trial: its number.
            reason: "memory": neither it nor any larger batch size is proposed again; "diverged", "untrainable":
                evidence against its corner; "failed": nothing is learned but not to repeat it.
        """
        told = self._known(trial)
        told.state, told.until_epoch, told.reason = "infeasible", 0, reason
        if reason == "memory":
            largest = told.batch_size - 1
            self.max_batch_size = largest if self.max_batch_size is None else min(self.max_batch_size, largest)

    def recommend(self, prefer: Prefer | None = None) -> Recommendation:
        """The configuration to use; raises BatchoptError where no value was told, or none that reaches the target."""
        advice = self.advise(prefer)
        if advice is None:
            raise BatchoptError(f"nothing to recommend: {self._view.untold}")
        return Recommendation.of(advice)

    def advise(self, prefer: Prefer | None = None) -> Advice | None:
        """All that the trials say of every batch size; None before the first value; of untimed trials the best."""
        prefer, most = (prefer or self._prefer) if self._timed() else "best", self.max_batch_size
        return self._standing().advise(self._space, sign=self._sign, max_batch_size=most, prefer=prefer)

    @on_one_thread
    def given_up(self) -> list[int]:
        """Paused trials that are never continued from now on, those told before left out.

        Returns:
            Their numbers: those that were slower than the best to a target; the least promising beyond `MAX_PAUSED`;
            all of them once `stop_reason` is set.
        """
        paused, standing = [trial for trial in self._trials.in_order() if trial.state == "paused"], self._standing()
        if not self.stop_reason:
            lost = [trial for trial in paused if standing.hopeless(trial)]
            # One that was interrupted goes on first, and is thought of again at its rung.
            interrupted = any(trial.epochs not in self._rungs for trial in paused if trial not in lost)
            excess = 0 if interrupted else len(paused) - len(lost) - MAX_PAUSED
            choices = self._choices() if excess > 0 else None
            least = choices.least_promising(excess) if choices is not None else []
            paused = lost + [self._trials[trial.trial] for trial in least]
        for trial in paused:
            trial.state = "stopped"
        return sorted(trial.trial for trial in paused)

    def enqueue(self, batch_size: int, learning_rate: float, extra: Mapping[str, Any] | None = None) -> None:
        """Ask for a configuration: those are started first, in order, where this machine holds them.

        Raises:
            InvalidInput: a batch size or a rate outside the space.
        """
        low, high = self._space.learning_rate
        if not self._space.smallest <= batch_size <= self._space.largest or not low <= learning_rate <= high:
            raise InvalidInput(f"{batch_size} x {learning_rate:g} lies outside the study's space.")
        params = {**self._space.middle_of_extra(), **(extra or {})}
        self._queue.append({BATCH_SIZE: batch_size, LEARNING_RATE: learning_rate, **params})

    def add(self, trial: Trial) -> None:
        """Feed a stored trial; numbers may have gaps. One fed again replaces what was known of it."""
        kept = replace(trial, curve=dict(trial.curve), extra=dict(trial.extra))
        if any(not math.isfinite(value) for value, _ in kept.curve.values()):
            kept = replace(kept, curve={}, state="infeasible", reason="diverged")
        if kept.state == "running" and not kept.until_epoch:
            kept.until_epoch = self._next_rung(kept)
        self._trials[trial.trial] = kept
        self._timings.note(kept)
        if kept.state == "infeasible" and kept.reason == "memory":
            self.infeasible(kept.trial, "memory")

    def forget(self, trial: int) -> None:
        """A step that could not be begun: its trial does not exist."""
        self._trials.remove(trial)
        self._timings.forget(trial)

    def assign(self, step: Step, number: int) -> Step:
        """The same step, its trial under the number that it really received.

        Raises:
            InvalidInput: a trial that is not known, or a number that another one has.
        """
        known = self._known(step.trial)
        if number == step.trial:
            return step
        if number in self._trials:
            raise InvalidInput(f"trial {number} exists already.")
        self.forget(step.trial)
        self._trials[number] = replace(known, trial=number)
        self._timings.note(self._trials[number])
        return replace(step, trial=number)

    def _blind(self, may_start: bool) -> Step | None:
        """A step before any value was seen."""
        trials = self._trials.in_order()
        if not may_start:
            waiting = any(trial.state == "running" for trial in trials)
            self.stop_reason = "" if waiting else "the trials of this study are used up"
            return None
        params = opening(self._space, self._cube, trials, seed=self._seed, max_batch_size=self.max_batch_size)
        if params is None:
            self.stop_reason = f"no batch size of the space fits in memory: at most {self.max_batch_size} would"
            return None
        return self._start(params, None, "new" if trials else "first")

    def _picked(self, may_start: bool) -> tuple[Choices | None, tuple[Candidate, Rule] | None, str]:
        """The choices, None before the first value; the step that is chosen; why there is none."""
        trials, standing, choices, why = self._trials.in_order(), self._standing(), None, ""
        for share in self._view.shares(len(trials)):
            choices = self._choices(share)
            if choices is None:
                break
            rng = np.random.default_rng([self._seed, len(trials), sum(trial.epochs for trial in trials)])
            new = choices.starting(rng, max_batch_size=self.max_batch_size) if may_start else []
            picked, shown = pick(choices, new), standing.improvement
            why = enough(choices, new, may_start=may_start, until=self._until, worth=self._worth, shown=shown)
            if picked is not None and not why:
                return choices, picked, ""
        return choices, None, why

    def _choices(self, share: float = 0.0) -> Choices | None:
        """What the evidence says, time counting so much; None before the first value."""
        how = self._standing(), share, self._space, self._cube
        self._before = choices_of(*how, rungs=self._rungs, sign=self._sign, before=self._before)
        return self._before

    def _standing(self) -> Standing:
        return self._view.standing(
            self._trials.in_order(), self._timings.cost(self._probed), max_epochs=self._max_epochs
        )

    def _timed(self) -> bool:
        """Whether it is known what an epoch takes."""
        return self._probed is not None or self._timings.any

    def _recommended(self) -> Step | None:
        """What is recommended, to its end, so that no study ends without; None where it was, or no trial is left."""
        advice = self.advise()
        if advice is None or not advice.complete or advice.recommended.trial >= 0:
            return None
        params, why = advice.recommended.params, "recommended, to its end"
        paused = next((t for t in self._trials.in_order() if t.state == "paused" and t.params == params), None)
        # In one go: what is recommended may move while it waits.
        if paused is not None:
            return self._continue(paused, None, f"continues, {why}", until=self._max_epochs)
        return self._start(params, None, f"new, {why}", until=self._max_epochs) if self.may_start else None

    def _start(self, params: Mapping[str, Any], gain: float | None, why: str, *, until: int | None = None) -> Step:
        number = max(self._trials, default=-1) + 1
        extra = {name: params[name] for name in self._space.extra}
        trial = Trial(number, params[BATCH_SIZE], params[LEARNING_RATE], extra)
        self._trials[number] = trial
        return self._continue(trial, gain, why, until=until)

    def _continue(self, trial: Trial, gain: float | None, why: str, *, until: int | None = None) -> Step:
        trial.until_epoch = self._standing().until(trial, until) if until else self._next_rung(trial)
        trial.state = "running"
        lengths = RunLengths(self._trials.in_order(), self._cube, max_epochs=self._max_epochs)
        cost = self._timings.cost(self._probed)
        seconds = cost(trial.batch_size) * lengths.left(trial) if self._timed() else None
        return step_of(trial, gain=gain, seconds=seconds, why=why)

    def _next_rung(self, trial: Trial) -> int:
        rung = next((rung for rung in self._rungs if rung > trial.epochs), self._max_epochs)
        return self._standing().until(trial, rung)

    def _fits(self, batch_size: int) -> bool:
        return self.max_batch_size is None or batch_size <= self.max_batch_size

    def _known(self, trial: int) -> Trial:
        if trial not in self._trials:
            raise InvalidInput(f"trial {trial} is not one of this scheduler's. Feed stored trials with `add` first.")
        return self._trials[trial]
