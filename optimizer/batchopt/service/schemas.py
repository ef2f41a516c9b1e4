"""What jobs and users say to the service: bounded, and validated where it comes in."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, ConfigDict, Field

from batchopt.errors import InvalidInput
from batchopt.machine.capacity import Capacity
from batchopt.measured import Epoch, is_number
from batchopt.question.goal import Counts, Goal, GoalKind
from batchopt.question.metric import Direction, direction_by
from batchopt.question.options import DEFAULT_TRIALS, LEASE_SECONDS, MAX_SEED, MOST, MOST_BYTES, Budget, Options
from batchopt.question.space import LARGEST_BATCH_SIZE, SearchSpace
from batchopt.question.task import ProgramStamp
from batchopt.store.stamp import Stamp

Name = Annotated[str, Field(min_length=1, max_length=128)]
Size = Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE)]
Seconds = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Number = float
"""Of an epoch; NaN and infinity mean that training diverged."""


class Said(BaseModel):
    """Whatever comes in: no field that is not known, and no text taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Range(Said):
    """Every whole number between, both ends included."""

    low: Size
    high: Size


class Dimension(Said):
    """A further dimension: numbers between two, or one of some choices."""

    type: Literal["float", "int", "categorical"]
    low: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(allow_inf_nan=False)] | None = None
    log: bool = False
    choices: Annotated[list[str | float | int | bool], Field(max_length=1000)] | None = None

    def distribution(self, name: str) -> BaseDistribution:
        """As Optuna has it.

        Raises:
            InvalidInput: what it says does not belong together.
        """
        try:
            if self.type == "categorical":
                return CategoricalDistribution(self.choices or [])
            if self.low is None or self.high is None:
                raise ValueError("give low and high")
            if self.type == "float":
                return FloatDistribution(self.low, self.high, log=self.log)
            if not (self.low.is_integer() and self.high.is_integer()):
                raise ValueError("low and high of an int are whole numbers")
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        except ValueError as error:
            raise InvalidInput(f"extra dimension {name!r}: {error}.") from None


class Question(Said):
    """What a study asks.

    `energy_weight` below 1 trades energy off with time, which `max_power_watts`, the most that the machine may draw,
    counts in joules.
    """

    batch_sizes: Annotated[list[Size], Field(min_length=1, max_length=1000)] | Range
    learning_rates: Annotated[list[float], Field(min_length=2, max_length=2)]
    extra: Annotated[dict[Name, Dimension], Field(max_length=32)] = {}
    metric: Name
    direction: Direction | None = None
    goal: GoalKind = "best"
    target: Annotated[float, Field(allow_inf_nan=False)] | None = None
    energy_weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    max_power_watts: Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)] | None = None
    value: Counts = "last"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    examples: Annotated[int, Field(ge=1, le=MOST_BYTES)]
    trials: Annotated[int, Field(ge=1, le=MOST)] | None = DEFAULT_TRIALS
    until_known: bool = True
    window: Annotated[int, Field(ge=2, le=MOST)] | None = None
    prune: bool = True
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    lease_seconds: Annotated[float, Field(allow_inf_nan=False)] = LEASE_SECONDS

    def stamp(self) -> Stamp:
        """As it is kept with the study; of the program nothing is known but its examples and its metric.

        Raises:
            InvalidInput: a space that cannot be.
        """
        if self.window is not None and (self.trials is not None or self.until_known):
            raise InvalidInput(
                "window: such a study goes on as long as jobs ask. Give `trials` null and `until_known` false."
            )
        traded = self.energy_weight is not None and self.energy_weight < 1
        if traded and self.max_power_watts is None:
            raise InvalidInput(
                f"energy_weight {self.energy_weight:g}: time is counted in joules by the most that the machine may "
                "draw. Give `max_power_watts`, or energy_weight 1, energy alone."
            )
        if self.max_power_watts is not None and not traded:
            raise InvalidInput("max_power_watts is for an energy_weight below 1. Leave it out.")
        sizes = self.batch_sizes
        low, high = self.learning_rates
        extra = {name: dimension.distribution(name) for name, dimension in self.extra.items()}
        space = SearchSpace((sizes.low, sizes.high) if isinstance(sizes, Range) else sizes, (low, high), extra)
        if space.largest > self.examples:
            raise InvalidInput(f"batch size {space.largest} is above `examples`, {self.examples}. Mend one of them.")
        direction = direction_by(self.metric, self.direction, "direction:")
        program = ProgramStamp("", "", self.examples, 0, self.metric, direction)
        return Stamp(
            space,
            Goal(self.goal, self.epochs, self.target, self.value, self.energy_weight),
            program,
            seed=self.seed,
            search="auto",
        )

    def options(self) -> Options:
        """How it is searched; raises InvalidInput for a lease that is too short."""
        return Options(lease=self.lease_seconds, prune=self.prune, window=self.window)

    def capacity(self, stamp: Stamp) -> Capacity:
        """What is known of the jobs' machines before the first of them asks."""
        sizes = [int(size) for size in stamp.space.grid_batch_sizes()]
        return Capacity(sizes, None, max_power_w=self.max_power_watts)

    def budget(self) -> Budget:
        """When it ends."""
        return Budget(trials=self.trials, until_known=self.until_known)


class Ask(Said):
    """A job that wants a step."""

    client_id: Name
    machine: Annotated[str, Field(max_length=128)] = ""
    can_pause: bool = False
    largest_batch_size: Size | None = None


class EpochTold(Said):
    """What an epoch came to; `value` is the study's metric."""

    epoch: Annotated[int, Field(ge=1, le=1_000_000)]
    value: Number
    seconds: Seconds
    loss: Number | None = None
    validation_loss: Number | None = None
    energy_joules: Seconds | None = None
    peak_memory_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)] | None = None
    examples: Annotated[int, Field(ge=1, le=MOST_BYTES)] | None = None

    def figures(self, batch_size: int, examples: int) -> Epoch:
        """As it is kept.

        Args:
            batch_size: of its trial.
            examples: of the study's training set, where the job does not say how many it trained on.
        """
        examples = self.examples or examples
        return Epoch(
            epoch=self.epoch,
            # A job whose metric is not finite is one whose training is not, whatever loss it tells of.
            train_loss=self.loss if is_number(self.value) else math.nan,
            train_value=math.nan,
            validation_loss=self.validation_loss,
            value=self.value,
            train_seconds=self.seconds,
            evaluation_seconds=0.0,
            steps=min(math.ceil(examples / batch_size), 2**31 - 1),
            examples_per_second=examples / self.seconds if self.seconds > 0 else 0.0,
            peak_bytes=self.peak_memory_bytes,
            joules=self.energy_joules,
        )


class Completion(Said):
    """The last value of a trial that told no epochs, or not all; nothing where it told all."""

    value: Number | None = None
    seconds: Seconds = 0.0
    energy_joules: Seconds | None = None


class Reason(Said):
    """Why a trial failed."""

    why: Annotated[str, Field(min_length=1, max_length=2000)]
