"""What is advised in the end: for every batch size the best learning rate, its worth, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from batchopt.question.goal import Prefer
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.search.preference import EVEN, SURE

ToleranceIs = Literal["runs", "range", "asked"]
"""Why a tolerance is what it is: what two runs differ by, a part of the range of the values, or what was asked for."""


@dataclass(frozen=True)
class Estimate:
    """What a configuration is worth: the final value of a run of it, without what two runs differ by.

    Attributes:
        batch_size, learning_rate, extra: the configuration.
        mean: the median of the posterior, in the units of the values.
        low, high: its 90 % interval.
        standard_error: half the interval that holds 68 %.
        chance_within: probability to lose no more than the tolerance against the best of all batch sizes, at any rate.
        chance_better: probability to be better than the recommended one; 0.5 for that one itself.
        seconds: that one more run is expected to take.
        epochs: in which it is expected to: fewer than all where training ends by itself, or at a target.
        runs: trials of this batch size with at least one epoch.
        trial: the number of the trial of this configuration that was trained to its end; -1 where there is none.
    """

    batch_size: int
    learning_rate: float
    extra: Mapping[str, Any]
    mean: float
    low: float
    high: float
    standard_error: float
    chance_within: float
    chance_better: float
    seconds: float
    epochs: float
    runs: int
    trial: int

    @property
    def params(self) -> dict[str, Any]:
        """By the names of its dimensions."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}


@dataclass(frozen=True)
class AgainstDefault:
    """What the recommended configuration gains over what most would use without asking.

    Attributes:
        batch_size, learning_rate: of the default.
        chance: probability that the recommended one is better.
        gain: by how much, the median; above 0 where the recommended one is better, whichever way values are.
        low, high: its 90 % interval.
        seconds: that one more run of the default is expected to take.
    """

    batch_size: int
    learning_rate: float
    chance: float
    gain: float
    low: float
    high: float
    seconds: float


@dataclass(frozen=True)
class Undecided:
    """A batch size that may well be better than the recommended one, as far as the data say.

    Attributes:
        chance: that it is.
        runs: whole runs of it beside those there are, and as many of the recommended one, that would most likely tell
            the two apart; None where far too many would, because they hardly differ.
        seconds: of all these runs.
    """

    batch_size: int
    chance: float
    runs: int | None
    seconds: float | None


@dataclass(frozen=True)
class Advice:
    """What to use, and what else would do.

    Attributes:
        recommended: the configuration to use, by what is preferred.
        prefer: what that is.
        best: the batch size that is expected best, whatever it takes.
        fastest: the fastest of those that are as good with even odds.
        complete: whether any trial was trained to its end.
        by_batch_size: the best configuration of each batch size that fits, ascending.
        tolerance: what counts as equally good, in the units of the values.
        tolerance_is: why: what two runs differ by, a part of the range, or what was asked for.
        as_good: batch sizes that are within the tolerance with a probability of `SURE` or more, ascending, and the
            recommended one.
        undecided: what the data cannot tell apart from the recommended one, ascending.
        run_sd: standard deviation of one run's final value around its configuration's worth.
        against_default: batch size 32 at Keras' default rate; None where the space has no such configuration.
    """

    recommended: Estimate
    prefer: Prefer
    best: Estimate
    fastest: Estimate
    complete: bool
    by_batch_size: list[Estimate]
    tolerance: float
    tolerance_is: ToleranceIs
    as_good: list[int]
    undecided: list[Undecided]
    run_sd: float
    against_default: AgainstDefault | None = None

    @property
    def sure(self) -> bool:
        """Whether the recommended one is within the tolerance as surely as it is meant to be."""
        return self.recommended.chance_within >= (EVEN if self.prefer == "fastest" else SURE)

    def at(self, batch_size: int) -> Estimate | None:
        """The best configuration of a batch size."""
        return next((row for row in self.by_batch_size if row.batch_size == batch_size), None)


@dataclass(frozen=True)
class Recommendation:
    """What to train with, and how sure that is.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        mean: the expected final value (the median of the posterior), without what two runs differ by; where there is a
            target, the seconds until it is reached.
        low, high: its 90 % interval.
        extra: values of the extra dimensions.
        trial: the number of the trial in which this configuration was trained; -1 where it never was.
        complete: whether that trial was trained to the end, or to the target.
        chance_within: probability to lose no more than `tolerance` against the best.
        tolerance: in the units of the values.
    """

    batch_size: int
    learning_rate: float
    mean: float
    low: float
    high: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    trial: int = -1
    complete: bool = True
    chance_within: float = 1.0
    tolerance: float = 0.0

    @classmethod
    def of(cls, advice: Advice) -> Recommendation:
        """What is recommended of what is advised."""
        row = advice.recommended
        trained = advice.complete and row.trial >= 0
        return cls(
            row.batch_size,
            row.learning_rate,
            row.mean,
            row.low,
            row.high,
            row.extra,
            row.trial,
            trained,
            row.chance_within,
            advice.tolerance,
        )
