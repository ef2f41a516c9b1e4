"""What jobs may say, and how much of it: everything is checked here, before anything is opened or written.

Nothing is converted: a number in quotes is no number. What is not known is refused, so that a misspelt name is not
taken for a default.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from batchopt.errors import InvalidInput
from batchopt.question.goal import Counts, Goal, GoalKind
from batchopt.question.metric import Direction, Metric
from batchopt.question.options import DEFAULT_SEED, DEFAULT_TRIALS, MAX_SEED
from batchopt.question.space import LARGEST_BATCH_SIZE, SearchSpace, powers_of_two
from batchopt.question.task import ProgramStamp
from batchopt.store.stamp import Stamp
from batchopt.text import printable

STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Names that need no quoting in a URL, a shell or a file."""

LEASE = r"^[0-9a-f]{32}[.][0-9a-f]{32}[.][0-9a-f]{12}$"
"""Which job, which of its askings, and from which machine."""

MOST_SIZES = 1000
MOST_TRIALS = 100_000
MOST_EPOCHS = 1_000_000
MOST_SECONDS = 1e9
MOST_JOULES = 1e15
MOST_BYTES = 1 << 60

LARGEST_VALUE = 1e30
"""A loss beyond it has diverged, whatever the job's float can still hold; its square has room in ours."""

PROGRAM = "service"
"""What stands for the model and the data of a study that jobs train: what they are, they alone know."""


def _plain(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("give letters that can be printed")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
Positive = Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
BatchSize = Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE)]


class Said(BaseModel):
    """Something that a job says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BatchSizeRange(Said):
    """Batch sizes from `low` to `high`: powers of two and both ends, or every whole number."""

    low: BatchSize
    high: BatchSize
    powers_of_two: bool = True


class LearningRateRange(Said):
    """Learning rates from `low` to `high`; where they are equal, that one."""

    low: Positive
    high: Positive


class MetricSaid(Said):
    """The metric that jobs report of their validation data, and which way is better."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@/ -]{0,63}$")] = "accuracy"
    direction: Direction = "maximize"


class GoalSaid(Said):
    """What is best, as in a study script."""

    kind: GoalKind = "best"
    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)] = 5
    target: Annotated[float, Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE, allow_inf_nan=False)] | None = None
    value: Counts = "last"


class Question(Said):
    """A study: what may be tried, what is watched, and what is best.

    Attributes:
        batch_sizes: a range, or exactly these.
        train_examples: in an epoch.
        trials: how many in all.
        search, seed: as of a study script.
        pause: whether a job keeps the state of a trial where every other job of the study finds it, so that a trial
            may be paused at a quarter and a half of its epochs and go on later, maybe elsewhere.
    """

    batch_sizes: BatchSizeRange | Annotated[list[BatchSize], Field(min_length=1, max_length=MOST_SIZES)]
    learning_rates: LearningRateRange
    metric: MetricSaid = MetricSaid()
    goal: GoalSaid = GoalSaid()
    train_examples: Annotated[int, Field(ge=1, le=LARGEST_BATCH_SIZE)]
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = DEFAULT_TRIALS
    search: Literal["auto", "tpe", "random", "grid", "qmc"] = "auto"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = DEFAULT_SEED
    pause: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        try:
            stamp = self.stamp()
            stamp.metric.target(stamp.goal.target)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return self

    def space(self) -> SearchSpace:
        """What may be tried.

        Raises:
            InvalidInput: a range is reversed.
        """
        sizes = self.batch_sizes
        rates = (float(self.learning_rates.low), float(self.learning_rates.high))
        if isinstance(sizes, list):
            return SearchSpace(list(sizes), rates)
        ladder = powers_of_two(sizes.low, sizes.high) if sizes.powers_of_two else (sizes.low, sizes.high)
        return SearchSpace(ladder, rates)

    def stamp(self) -> Stamp:
        """The question as a study keeps it.

        Raises:
            InvalidInput: its parts do not belong together.
        """
        target = None if self.goal.target is None else float(self.goal.target)
        program = ProgramStamp(
            PROGRAM,
            PROGRAM,
            train_examples=self.train_examples,
            validation_examples=0,
            metric=self.metric.name,
            direction=self.metric.direction,
        )
        goal = Goal(self.goal.kind, epochs=self.goal.epochs, target=target, value=self.goal.value)
        return Stamp(self.space(), goal, program, seed=self.seed, search=self.search)

    def watched(self) -> Metric:
        """The metric."""
        return Metric(self.metric.name, self.metric.direction)


class Ask(Said):
    """Which job asks, and what it runs on.

    Attributes:
        client_id: the job's name, unlike any other's, the same when it is started again.
        machine: a name for what it runs on: seconds are compared between those of one name.
        largest_batch_size: that fits there; any where None.
    """

    client_id: Text
    machine: Text = "a machine"
    largest_batch_size: BatchSize | None = None


class Held(Said):
    """The lease of a trial, as `ask` gave it."""

    lease: Annotated[str, Field(pattern=LEASE)]


Figure = Annotated[float, Field()]
"""A number that may be NaN or infinite."""


class EpochSaid(Held):
    """An epoch of a trial.

    Attributes:
        epoch: from 1.
        value: the metric on the validation data; null, NaN or an infinity where training has diverged.
        seconds: of training, evaluation left out.
        loss, validation_loss: where known; one that is not finite means that training has diverged.
        evaluation_seconds, peak_bytes, joules: where known.
        over: whether training has ended by itself with this epoch.
    """

    epoch: Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
    value: Figure | None
    seconds: Seconds
    loss: Figure | None = None
    validation_loss: Figure | None = None
    evaluation_seconds: Seconds = 0.0
    peak_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)] | None = None
    joules: Annotated[float, Field(ge=0, le=MOST_JOULES, allow_inf_nan=False)] | None = None
    over: bool = False

    @property
    def diverged(self) -> bool:
        """Whether it says that training has diverged."""
        losses = [loss for loss in (self.loss, self.validation_loss) if loss is not None]
        return self.value is None or any(not _sane(figure) for figure in (self.value, *losses))


class Failure(Held):
    """A trial cannot be trained, and why."""

    why: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(lambda text: printable(text))]


def _sane(figure: float) -> bool:
    return math.isfinite(figure) and abs(figure) <= LARGEST_VALUE
