"""What the study's process and a worker say to each other: frozen records, no TensorFlow.

The study sends `Setup` once, then `PredictMemory`, `Measure`, `Train` and `Save`, one at a time. The worker answers
`Setup` with `Ready`, `PredictMemory` with `PredictedMemory`, `Measure` with one `Measured` per batch size and then
`StepTimes`, `Train` with one `EpochDone` per epoch, `Save` with `Saved`, `OpenTest`, which alone opens the test set,
with `OpenedTest`, `SaveModel` with `ModelSaved`; with `Remark` before any of them; or with `Failed` at any time, after
which it is of no more use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from batchopt.machine.machine import Machine
from batchopt.measured import DeviceMemory, EngineName, EngineTiming, Epoch, StepTime
from batchopt.question.metric import Target
from batchopt.question.task import ProgramStamp, Task
from batchopt.training.seeds import Purpose
from batchopt.training.surroundings import Surroundings, taken


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
        accumulate: whether batches may be trained in micro-batches.
        hold_data, share: whether the data may be held on the device, and a GPU shared with other studies.
        cluster: start the worker in a Ray cluster, with so much of it; on this machine where None.
        deterministic: whether equal epochs are to come out equal to the last bit.
        batch_sizes, epochs: how many of each the study is likely to train, to weigh compilation against speed.
        trial_epochs: of a whole trial.
        join_validation: whether to train on the validation data too, once the program is known to be the study's.
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
    accumulate: bool = False
    cluster: ClusterShare | None = None
    deterministic: bool = False
    batch_sizes: int = 10
    epochs: int = 100
    trial_epochs: int = 1
    join_validation: bool = False
    surroundings: Surroundings = field(default_factory=taken)


@dataclass(frozen=True)
class Train:
    """Train one trial's epochs `from_epoch + 1` to `until_epoch`.

    Attributes:
        checkpoint: the trial's state after `from_epoch` epochs; None where the worker holds it, or from_epoch is 0.
        last_epoch: of a whole trial, after which no checkpoint is of use.
        save_seconds: what keeping a checkpoint takes, beside packing it.
        purpose: `search` for a trial; else `trial` is the number of a run that confirms, or of a model that is kept,
            with seeds that no trial has.
        until: the trial is over after the first epoch whose validation metric is at this; None for no such.
        micro_batch_size: of a larger batch, so many examples at once, their gradients averaged; None for whole batches.
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
    purpose: Purpose = "search"
    until: Target | None = None
    micro_batch_size: int | None = None


@dataclass(frozen=True)
class OpenTest:
    """Evaluate on the test set the run that was trained last, which confirms; refused for any other."""

    run: int


@dataclass(frozen=True)
class OpenedTest:
    """What the test set says of a run."""

    run: int
    loss: float | None
    value: float


@dataclass(frozen=True)
class SaveModel:
    """Write the model that was trained last to a file of this machine, as `fit` would leave it; no trial's.

    Attributes:
        path: absolute; ends in .keras.
    """

    path: str


@dataclass(frozen=True)
class ModelSaved:
    """The model is written.

    Attributes:
        validation_loss, value: of the weights that were written, averaged ones where the optimizer keeps
            such; the loss is None where the model's own steps return none that is known as such.
    """

    path: str
    validation_loss: float | None
    value: float


@dataclass(frozen=True)
class Save:
    """Hand over the state of the trial trained last."""

    trial: int


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
class PredictMemory:
    """Say what a training step of these batch sizes needs, without running it."""

    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class PredictedMemory:
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
        stopped: whether one of its callbacks has ended it.
    """

    trial: int
    figures: Epoch
    compile_seconds: float
    worker_bytes: int
    checkpoint: bytes | None = None
    stopped: bool = False


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


Request = Setup | PredictMemory | Measure | Train | Save | OpenTest | SaveModel
Answer = Ready | PredictedMemory | Measured | StepTimes | EpochDone | Saved | OpenedTest | ModelSaved | Remark | Failed
