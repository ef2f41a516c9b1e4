"""What the study's process and a worker say to each other: frozen records, no TensorFlow.

The study sends `Setup` once, then `Foresee`, `Measure`, `Train` and `Save`, one at a time. The worker answers `Setup`
with `Ready`, `Foresee` with `Foreseen`, `Measure` with one `Measured` per batch size and then `StepTimes`, `Train` with
one `EpochDone` per epoch, `Save` with `Saved`, `OpenTest`, which alone opens the test set, with `OpenedTest`; with
`Remark` before any of them; or with `Failed` at any time, after which it is of no more use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from optimizer.training.machine import Machine
from optimizer.training.surroundings import Surroundings, taken
from optimizer.training.task import ProgramStamp, Task

EngineName = Literal["fused-xla", "fused", "fit"]
"""How an epoch is run: one program compiled by XLA, one program without it, Keras' own loop."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; times are on the training clock, compilation off it.

    Attributes:
        train_loss, validation_loss: None where the model's own steps return none that is known as such.
        peak_bytes: the most device memory that was in use; None where the device does not tell.
        joules: energy that the GPU drew, evaluation included; None where it does not tell.
        side_by_side: whether another worker trained on the same processor meanwhile, so that the times are not its own.
        noise_small, noise_big: batch sizes whose gradients were looked at after it, on its weights; None after most.
        sq_norm_small, sq_norm_big: squared gradient norms, averaged over batches of these sizes.
        noise_seconds: what that took, off the training clock.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float
    train_seconds: float
    evaluation_seconds: float
    steps: int
    examples_per_second: float
    peak_bytes: int | None = None
    joules: float | None = None
    side_by_side: bool = False
    noise_small: int | None = None
    noise_big: int | None = None
    sq_norm_small: float | None = None
    sq_norm_big: float | None = None
    noise_seconds: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite."""
        return any(loss is not None and not math.isfinite(loss) for loss in (self.train_loss, self.validation_loss))

    @property
    def lost(self) -> bool:
        """Whether its trial can have no value: it diverged, or the metric is NaN or infinite though no loss is."""
        return self.diverged or not math.isfinite(self.validation_accuracy)


@dataclass(frozen=True)
class ClusterShare:
    """What each worker gets of a Ray cluster.

    Attributes:
        cpus, gpus, workers, local: as Ray counts them; workers there is room for; whether it is this machine alone.
    """

    cpus: float
    gpus: float
    workers: int
    local: bool = False


@dataclass(frozen=True)
class Setup:
    """What to train, on what.

    Attributes:
        task: the study's task.
        data_path: handed to the task's `load_data`.
        train_examples: train on so many; all where None.
        device: as `--device`.
        cores: this worker's own processor cores, by number; all that the study may use where None.
        engine: pinned engine; None to time and choose.
        known_engines: what was chosen before on machines of these fingerprints; not timed again.
        learning_rate, extra: a configuration of the space, to build the model once and look at it.
        memory_limit: bytes of device memory that training may use; all there is where None.
        hold_data, share: whether the data may be held on the device, and a GPU shared with other studies.
        cluster: start the worker in a Ray cluster, with so much of it; on this machine where None.
        deterministic: whether equal epochs are to come out equal to the last bit.
        batch_sizes, epochs: how many of each the study is likely to train, to weigh compilation against speed.
        surroundings: what the script has set beside the task's functions, when this was made.
    """

    task: Task
    data_path: str | None
    train_examples: int | None
    device: str
    cores: tuple[int, ...] | None
    engine: EngineName | None
    learning_rate: float
    extra: dict[str, Any] = field(default_factory=dict)
    known_engines: dict[str, EngineName] = field(default_factory=dict)
    memory_limit: int | None = None
    hold_data: bool = True
    share: bool = False
    cluster: ClusterShare | None = None
    deterministic: bool = False
    batch_sizes: int = 10
    epochs: int = 100
    surroundings: Surroundings = field(default_factory=taken)


@dataclass(frozen=True)
class Train:
    """Train one trial's epochs `from_epoch + 1` to `until_epoch`.

    Attributes:
        checkpoint: the trial's state after `from_epoch` epochs; None where the worker holds it, or from_epoch is 0.
        last_epoch: of a whole trial, after which no checkpoint is of use.
        save_seconds: what keeping a checkpoint takes, beside packing it.
        confirming: whether `trial` is the number of a run that confirms, with seeds that no trial has.
        until_accuracy: the trial is over after the first epoch whose validation accuracy is at this; None for no such.
    """

    trial: int
    study_seed: int
    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    from_epoch: int
    until_epoch: int
    checkpoint: bytes | None = None
    last_epoch: int = 0
    save_seconds: float = 0.0
    confirming: bool = False
    until_accuracy: float | None = None


@dataclass(frozen=True)
class OpenTest:
    """Evaluate on the test set the run that was trained last, which confirms; refused for any other."""

    run: int


@dataclass(frozen=True)
class OpenedTest:
    """What the test set says of a run."""

    run: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Save:
    """Hand over the state of the trial trained last."""

    trial: int


@dataclass(frozen=True)
class EngineTiming:
    """What one engine took in the probe, or why it cannot be used."""

    engine: EngineName
    step_time_s: float
    compile_seconds: float
    refusal: str = ""


@dataclass(frozen=True)
class Ready:
    """The worker can train.

    Attributes:
        program: fingerprints of model and data; counts of examples.
        parameters: trainable parameters of the model.
        engine: the engine that trials will use.
        timings: of the engines, the chosen one first; empty where the engine was pinned.
        memory: of the device, as the model and the data leave it.
        data_held, has_test: whether the data is on the device; whether there is a test set.
        engine_seconds: what building the model and timing the engines took, compilation included.
    """

    machine: Machine
    program: ProgramStamp
    parameters: int
    engine: EngineName
    timings: tuple[EngineTiming, ...]
    memory: DeviceMemory
    data_held: bool = True
    has_test: bool = False
    engine_seconds: float = 0.0


@dataclass(frozen=True)
class DeviceMemory:
    """What a device's memory is worth to training; bytes.

    Attributes:
        capacity_bytes: what this worker may use in all.
        resident_bytes: what parameters, optimizer slots and data held on the device take, whatever the batch size.
        beginning_bytes: what the beginning of a trial needs for a while, whatever the batch size.
        evaluation_bytes: what evaluation took when it was tried; it makes do with less, and is never what does not fit.
    """

    capacity_bytes: int
    resident_bytes: int
    beginning_bytes: int = 0
    evaluation_bytes: int = 0


@dataclass(frozen=True)
class Foresee:
    """Say what a training step of these batch sizes needs, without running it."""

    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Foreseen:
    """What the compiler says that a training step needs beside what is resident.

    Attributes:
        step_bytes: by batch size; empty where the engine's compiler does not tell.
        refusal: why it does not, where that is an error and not the engine's nature.
    """

    step_bytes: dict[int, int]
    refusal: str = ""


@dataclass(frozen=True)
class Measure:
    """Run real training steps and an evaluation at these batch sizes, then time the steps.

    Attributes:
        batch_sizes: ascending.
        seconds: how long this should take at most; 0 to time nothing.
    """

    batch_sizes: tuple[int, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A batch size was compiled, and trained and evaluated without failing.

    Attributes:
        step_bytes: the most that a training step took beside what is resident; None where the device does not tell.
    """

    batch_size: int
    compile_seconds: float
    step_bytes: int | None
    memory: DeviceMemory


@dataclass(frozen=True)
class StepTime:
    """What a training step of one batch size takes.

    Attributes:
        step_time_s: seconds per step, the median of `count` rounds.
        spread_s: half the range of the rounds' middle half.
        epoch_overhead_s: what an epoch takes beside its whole steps and its last partial one.
    """

    batch_size: int
    step_time_s: float
    spread_s: float
    epoch_overhead_s: float
    count: int


@dataclass(frozen=True)
class StepTimes:
    """The rows of a probe, by batch size."""

    rows: tuple[StepTime, ...]


@dataclass(frozen=True)
class Remark:
    """Something that the user should know, in one line; the answer follows."""

    text: str


@dataclass(frozen=True)
class EpochDone:
    """One epoch of a trial.

    Attributes:
        compile_seconds: what had to be compiled before it, off the training clock.
        worker_bytes: the worker's resident memory.
        checkpoint: the trial's state after this epoch, where it is worth its cost.
    """

    trial: int
    figures: Epoch
    compile_seconds: float
    worker_bytes: int
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Saved:
    """A trial's state after `epoch` epochs, as `checkpoint.pack` wrote it."""

    trial: int
    epoch: int
    checkpoint: bytes


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on.

    Attributes:
        kind: `input`, something the user can mend, said in one line; `task`, the user's code raised; `training`, other
            code did; `memory`, there was too little; `model`, too little to build the model, whatever the batch size;
            `untrainable`, `build_model` refused the configuration, and the worker can go on.
        error: the class of the error.
        message: the line, or the traceback.
    """

    kind: Literal["input", "task", "training", "memory", "model", "untrainable"]
    error: str
    message: str


Request = Setup | Foresee | Measure | Train | Save | OpenTest
Answer = Ready | Foreseen | Measured | StepTimes | EpochDone | Saved | OpenedTest | Remark | Failed
