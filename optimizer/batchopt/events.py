"""What happens while a study goes on, as records for whoever listens: the terminal, a notebook, a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchopt.machine.machine import Machine
from batchopt.measured import EngineTiming, Epoch
from batchopt.question.metric import Metric
from batchopt.question.options import Configuration
from batchopt.search.steps import Step
from batchopt.store.confirmations import ConfirmationRun


@dataclass(frozen=True)
class Starting:
    """The workers are being started."""

    workers: int


@dataclass(frozen=True)
class Probing:
    """The machine is being measured.

    Attributes:
        batch_size: what is tried for memory now; None while steps are timed.
        done, of: how many batch sizes have been tried, and about how many will be.
    """

    batch_size: int | None
    done: int
    of: int


@dataclass(frozen=True)
class Opened:
    """The study is open and its first worker ready, or its first command about to start.

    Attributes:
        machine, engine, timings: what trains; None and nothing where that is a command.
        metric: what the study watches.
        trials: how many trials the study is to have; None where only time ends it.
        finished: how many it has already.
        running: how many were left unfinished, to be taken up again.
        max_batch_size: the largest batch size of the space that this machine holds; None where all fit.
        accumulate: whether larger ones are trained in micro-batches.
        best: the best of the trials that are complete already; None where none is.
        command: that trains, as it was given; empty where our own workers do.
    """

    study: str
    storage: str
    machine: Machine | None
    engine: str
    timings: tuple[EngineTiming, ...]
    epochs: int
    metric: Metric
    trials: int | None
    finished: int
    running: int
    max_batch_size: int | None = None
    accumulate: bool = False
    best: TrialEnded | None = None
    command: str = ""


@dataclass(frozen=True)
class Stepped:
    """A worker, or a command, was given a step."""

    step: Step


@dataclass(frozen=True)
class Trained:
    """One epoch of a trial."""

    trial: int
    figures: Epoch
    compile_seconds: float


@dataclass(frozen=True)
class TrialEnded:
    """A trial came to its end.

    Attributes:
        state: `complete`, `pruned` or `fail`.
        metric: what the study watches.
        value: of it, on the validation data after the last epoch; None where there was none.
        epochs: how many it was trained.
        train_seconds: on the training clock, all its epochs together.
        note: `diverged`, `out of memory`, how the target was met or missed, or why it failed.
        cost_to_target: seconds, or joules, on the study's reference machine; None where there is no target, or it
            was not reached.
    """

    trial: int
    state: str
    batch_size: int
    learning_rate: float
    metric: Metric
    value: float | None
    epochs: int
    train_seconds: float
    note: str = ""
    cost_to_target: float | None = None

    def better_than(self, other: TrialEnded | None) -> bool:
        """Whether this complete trial is the best so far, `other` having been it."""
        if other is None:
            return True
        if self.cost_to_target is not None and other.cost_to_target is not None:
            return self.cost_to_target < other.cost_to_target
        if self.value is None or other.value is None:
            return other.value is None
        return self.metric.score(self.value) > self.metric.score(other.value)


@dataclass(frozen=True)
class Confirming:
    """A run that confirms the recommendation goes on; `epoch` of its `epochs` are trained."""

    role: str
    configuration: Configuration
    run: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Confirmed:
    """A run that confirms has ended.

    Attributes:
        seeds: how many runs each configuration is to have.
        done, of: its place among all runs.
    """

    run: ConfirmationRun
    metric: Metric
    seeds: int
    done: int
    of: int


@dataclass(frozen=True)
class TrainingModel:
    """The model that is kept is trained; `epoch` of at most `epochs` are.

    Attributes:
        figures: of that epoch; None before the first one, and where a checkpoint is gone on from.
    """

    configuration: Configuration
    metric: Metric
    epoch: int
    epochs: int
    figures: Epoch | None = None


@dataclass(frozen=True)
class Noted:
    """Something worth one line; a `warning` is said even to who wants to hear nothing of the study."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Ended:
    """The study ended by itself."""

    reason: str


Event = (
    Starting
    | Probing
    | Opened
    | Stepped
    | Trained
    | TrialEnded
    | Confirming
    | Confirmed
    | TrainingModel
    | Noted
    | Ended
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""


@dataclass
class Progress:
    """How far an unfinished trial is."""

    batch_size: int
    learning_rate: float
    epochs: int = 0
    value: float | None = None
    train_seconds: float = 0.0
    cost_to_target: float | None = None

    def trained(self, figures: Epoch) -> None:
        """Count an epoch, where it is a new one, and not one that was trained again."""
        if figures.epoch > self.epochs:
            self.epochs = figures.epoch
            self.value = figures.value
            self.train_seconds += figures.train_seconds

    def ended(self, trial: int, state: str, note: str, metric: Metric) -> TrialEnded:
        """The end of the trial, for whoever listens."""
        return TrialEnded(
            trial=trial,
            state=state,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            metric=metric,
            value=self.value,
            epochs=self.epochs,
            train_seconds=self.train_seconds,
            note=note,
            cost_to_target=self.cost_to_target,
        )
