"""A worker process: asked over its socket, killed with real signals.

TensorFlow takes seconds to start, so one worker answers all tests that leave it as it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from batchopt import Dataset, Task
from batchopt.datasets import load_mnist
from batchopt.errors import DeviceError
from batchopt.machine.memory import needed
from batchopt.training.device import use_device
from batchopt.training.messages import (
    EpochDone,
    Failed,
    Measure,
    Measured,
    OpenedTest,
    OpenTest,
    PredictedMemory,
    PredictMemory,
    Ready,
    Remark,
    Save,
    Saved,
    SaveModel,
    Setup,
    StepTimes,
    Train,
)
from batchopt.training.raised import failure
from batchopt.workers.client import Worker
from batchopt.workers.process import Died
from mnist import build_model
from models import KINDS
from scripts import findable

Start = Callable[..., Worker]


def small_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:2000], labels[:2000]), validation=(images[2000:2500], labels[2000:2500]))


def setup(**changes: Any) -> Setup:
    fields: dict[str, Any] = {
        "task": Task(build_model, small_mnist),
        "data_path": None,
        "train_examples": None,
        "device": "cpu",
        "cores": None,
        "engine": "fused",
        "learning_rate": 1e-3,
    }
    return Setup(**(fields | changes))


def flexible(learning_rate: float, units: int = 128, on_host: bool = False) -> Any:
    import keras
    import tensorflow as tf
    from keras.layers import Dense, Flatten

    class OnHost(keras.layers.Layer):
        """XLA cannot compile a call back into Python."""

        def call(self, x: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), x.shape)

    first = [OnHost()] if on_host else []
    layers = [keras.Input((28, 28)), *first, Flatten(), Dense(units, "relu"), Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def with_test(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(small_mnist(path).train, small_mnist(path).validation, test=(images[:500], labels[:500]))


def ready_of(worker: Worker) -> Ready:
    """What it says of itself, after what it says of modules that other tests of this process have changed."""
    while isinstance(answer := worker.receive(), Remark):
        pass
    assert isinstance(answer, Ready), answer
    return answer


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Worker, Ready]]:
    """A worker of engine `fused`, and what it said of itself."""
    worker = Worker(setup())
    yield worker, ready_of(worker)
    worker.kill()


@pytest.fixture(scope="module")
def shared_xla() -> Iterator[tuple[Worker, Ready]]:
    """A worker of engine `fused-xla`, whose model has extra dimensions."""
    worker = Worker(setup(task=Task(flexible, small_mnist), engine="fused-xla", extra={"units": 3}))
    yield worker, ready_of(worker)
    worker.kill()


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def begin(**changes: Any) -> Worker:
        started.append(Worker(setup(**changes)))
        return started[-1]

    yield begin
    for worker in started:
        worker.kill()


def ask(
    worker: Worker, from_epoch: int, until_epoch: int, checkpoint: bytes | None = None, trial: int = 4
) -> list[Any]:
    worker.send(Train(trial, 0, 64, 2e-3, {}, from_epoch, until_epoch, checkpoint))
    return [worker.receive() for _ in range(until_epoch - from_epoch)]


def test_a_worker_trains_saves_and_another_goes_on_from_there(start: Start) -> None:
    """The curve of a trial handed over after two epochs is the curve of one trained through, with deterministic ops to
    the last bit."""
    first = start(deterministic=True)
    ready = ready_of(first)
    assert (ready.program.train_examples, ready.program.validation_examples) == (2000, 500)
    assert (ready.engine, ready.machine.kind, ready.parameters) == ("fused", "cpu", 101_770)
    whole = ask(first, 0, 4)
    assert [answer.figures.epoch for answer in whole] == [1, 2, 3, 4]
    assert whole[-1].figures.train_loss < whole[0].figures.train_loss
    assert whole[0].figures.steps == 32
    assert whole[1].compile_seconds == 0

    ask(first, 0, 2)
    first.send(Save(4))
    saved = first.receive()
    assert isinstance(saved, Saved)
    assert saved.epoch == 2

    second = start(deterministic=True)
    assert second.receive().program == ready.program
    rest = ask(second, 2, 4, saved.checkpoint)
    for answer, reference in zip(rest, whole[2:], strict=True):
        assert answer.figures.train_loss == reference.figures.train_loss
        assert answer.figures.validation_loss == reference.figures.validation_loss
        assert answer.figures.value == reference.figures.value


def test_a_killed_worker_is_noticed_with_the_signal_that_killed_it(start: Start) -> None:
    worker = start()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(Died, match="SIGKILL") as death:
        ask(worker, 0, 1000)
    assert death.value.exit_code == -signal.SIGKILL


@pytest.mark.slow
def test_where_the_hosts_memory_runs_out_the_kernel_ends_the_worker_and_not_the_study(
    shared: tuple[Worker, Ready],
) -> None:
    """Whatever `build_model` takes, with no limit set: the kernel's own score of each says which."""
    worker, study = (int(Path(f"/proc/{pid}/oom_score").read_text()) for pid in (shared[0].pid, os.getpid()))
    assert worker > study


def test_a_module_that_makes_a_variable_when_it_is_imported_does_not_choose_the_device() -> None:
    """TensorFlow takes its devices and their memory as they are set when it first allocates."""
    kind = KINDS["counter_of_a_module"]
    with Worker(setup(task=Task(kind.build, lambda path: kind.data()), extra={"knob": 0.5})) as worker:
        while isinstance(answer := worker.receive(), Remark):
            pass
    assert isinstance(answer, Ready), answer


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    """No orphan goes on heating the device."""
    code = (
        "import sys, time; from test_worker import setup; from batchopt.workers.client import Worker;"
        "w = Worker(setup()); print(w.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=findable())
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while child.num_threads() == 1:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert psutil.wait_procs([child], timeout=30)[1] == []


def test_an_error_in_the_users_code_comes_back_with_its_traceback(start: Start) -> None:
    def broken(learning_rate: float) -> Any:
        return 1 / 0

    answer = start(task=Task(broken, small_mnist)).receive()
    assert isinstance(answer, Failed)
    assert answer.kind == "task"
    assert "in broken" in answer.message
    assert "ZeroDivisionError" in answer.message


@pytest.mark.slow
def test_what_the_compiler_foresees_is_what_the_allocator_sees(shared_xla: tuple[Worker, Ready]) -> None:
    """XLA's buffer assignment: exactly, where the allocator splits what it has, which it does not up to twice of it."""
    worker, _ = shared_xla
    train_flexible(worker, units=128)
    sizes = (500, 2000)
    worker.send(PredictMemory(sizes))
    foreseen = worker.receive()
    assert isinstance(foreseen, PredictedMemory)
    worker.send(Measure(sizes))
    over = []
    for size in sizes:
        answer = worker.receive()
        assert isinstance(answer, Measured)
        assert answer.step_bytes is not None
        assert foreseen.step_bytes[size] <= answer.step_bytes < 2 * foreseen.step_bytes[size]
        over.append(answer.step_bytes / foreseen.step_bytes[size] - 1)
    assert min(over) < 0.01
    assert worker.receive() == StepTimes(())
    assert foreseen.step_bytes[2000] > foreseen.step_bytes[500] + (4 << 20)


def test_steps_are_timed_and_the_weights_are_as_they_were(shared: tuple[Worker, Ready]) -> None:
    measured, _ = shared
    curves = [[answer.figures.train_loss for answer in ask(measured, 0, 2)]]
    measured.send(Measure((16, 2000), seconds=0.5))
    assert [measured.receive().batch_size for _ in range(2)] == [16, 2000]
    times = measured.receive()
    assert isinstance(times, StepTimes)
    assert [row.batch_size for row in times.rows] == [16, 2000]
    assert 0 < times.rows[0].step_time_s < times.rows[1].step_time_s
    assert all(row.count >= 1 and row.epoch_overhead_s >= 0 for row in times.rows)
    curves.append([answer.figures.train_loss for answer in ask(measured, 0, 2)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_data_on_the_device_takes_what_it_has_whatever_its_place_on_the_host(shared: tuple[Worker, Ready]) -> None:
    """TensorFlow shares arrays that lie at a multiple of 64 bytes unless they are moved."""
    assert shared[1].memory.resident_bytes >= 2500 * 785 * 4


@pytest.mark.slow
def test_evaluation_is_never_what_does_not_fit(start: Start) -> None:
    """1000 examples at once would take 350 MiB of 200; so does a batch of 128 that engines are timed with."""

    def wide(learning_rate: float) -> Any:
        import keras
        from keras.layers import Conv2D, Dense, GlobalAveragePooling2D

        layers = [Conv2D(128, 3, activation="relu"), GlobalAveragePooling2D(), Dense(10, "softmax")]
        model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
        model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def few(path: str | None) -> Dataset:
        images, labels = load_mnist().train
        return Dataset(train=(images[:8], labels[:8]), validation=(images[1000:2000], labels[1000:2000]))

    worker = start(task=Task(wide, few), memory_limit=200 << 20)
    worker.receive()
    worker.send(Measure((4,)))
    answer = worker.receive()
    assert isinstance(answer, Measured)
    assert answer.step_bytes is not None
    assert needed(answer.memory, answer.step_bytes) < 50 << 20


def test_a_loss_that_is_not_finite_ends_the_trial_there(shared: tuple[Worker, Ready]) -> None:
    worker, _ = shared
    worker.send(Train(0, 0, 8, 1e30, {}, 0, 5))
    answer = worker.receive()
    assert isinstance(answer, EpochDone)
    assert answer.figures.diverged
    # It did not go on to the second epoch, and can be asked again.
    assert ask(worker, 0, 1, trial=1)[0].trial == 1


def test_trials_in_a_row_do_not_grow_the_worker(shared: tuple[Worker, Ready]) -> None:
    """In one process as Keras leaves it, each takes 6 MiB or more for good."""
    worker, _ = shared
    sizes = [ask(worker, 0, 1, trial=trial)[0].worker_bytes for trial in range(16)]
    assert sizes[-1] - sizes[2] < 40 * 2**20


def test_what_user_code_prints_stays_out_of_standard_output_and_what_can_be_mended_is_one_line() -> None:
    code = (
        "from batchopt import Task; from batchopt.errors import DataError; from mnist import build_model;"
        "from batchopt.workers.client import Worker; from test_worker import setup\n"
        "def loud(path):\n    print('LOUD'); raise DataError(f'data file {path} is not there')\n"
        "w = Worker(setup(task=Task(build_model, loud), data_path='x.npz')); print(w.receive()); w.kill()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=findable())
    assert done.stdout == f"{Failed('input', 'DataError', 'data file x.npz is not there')}\n"
    assert "LOUD" not in done.stderr


def test_a_gpu_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which `use_device` sets, for a process of its own.
    for name in ("TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"):
        monkeypatch.setenv(name, "")
    with pytest.raises(DeviceError, match="--device gpu:7: ") as no:
        use_device("gpu:7")
    assert failure(no.value) == Failed("input", "DeviceError", str(no.value))


def train_flexible(worker: Worker, **extra: Any) -> list[Any]:
    """Train an epoch of a model with these extra dimensions: all that the worker says."""
    worker.send(Train(len(extra), 0, 64, 0.1, extra, 0, 1))
    said = [worker.receive()]
    while isinstance(said[-1], Remark):
        said.append(worker.receive())
    return said


def test_extra_dimensions_reach_build_model(shared_xla: tuple[Worker, Ready]) -> None:
    worker, ready = shared_xla
    assert ready.parameters == 784 * 3 + 3 + 3 * 10 + 10
    for units in (3, 5):
        (done,) = train_flexible(worker, units=units)
        assert np.isfinite(done.figures.train_loss)


def test_a_model_of_one_trial_that_xla_refuses_is_trained_without_it_and_says_so(
    shared_xla: tuple[Worker, Ready],
) -> None:
    """An extra dimension may bring in what XLA cannot compile; the trials around it stay as fast as they were."""
    worker, _ = shared_xla
    remark, done = train_flexible(worker, units=3, on_host=True)
    assert "XLA refuses this model" in remark.text
    assert "trained by engine fused" in remark.text
    assert np.isfinite(done.figures.train_loss)
    # Once is enough.
    assert len(train_flexible(worker, units=3, on_host=True)) == 1
    assert len(train_flexible(worker, units=3)) == 1


class Sealed:
    """A test set that nothing may look into."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("the test set was opened")

    def __iter__(self) -> Any:
        raise AssertionError("the test set was opened")


def test_the_test_set_is_opened_for_a_run_that_confirms_and_for_no_trial(start: Start) -> None:
    worker = start(task=Task(build_model, with_test))
    assert ready_of(worker).has_test
    (trial,) = ask(worker, 0, 1, trial=0)
    worker.send(Train(0, 0, 64, 2e-3, {}, 0, 1, purpose="confirm"))
    run = worker.receive()
    assert run.figures.train_loss != trial.figures.train_loss, "other weights and another order than the trial's"
    worker.send(OpenTest(0))
    tested = worker.receive()
    assert isinstance(tested, OpenedTest)
    # These 500 are the first ones that it was trained on.
    assert tested.value == pytest.approx(run.figures.train_value, abs=0.2)
    assert tested.value > 0.7
    ask(worker, 0, 1, trial=0)
    worker.send(OpenTest(0))
    refusal = worker.receive()
    assert isinstance(refusal, Failed)
    assert "the test set is opened for a run that confirms" in refusal.message


def test_no_trial_is_saved_as_a_model(start: Start, tmp_path: Path) -> None:
    worker = start()
    ready_of(worker)
    ask(worker, 0, 1, trial=0)
    worker.send(SaveModel(str(tmp_path / "trial.keras")))
    answer = worker.receive()
    assert isinstance(answer, Failed) and "no trial's is" in answer.message
    assert list(tmp_path.iterdir()) == []


def test_a_search_does_not_look_into_the_test_set(start: Start) -> None:
    def sealed(path: str | None) -> Dataset:
        return Dataset(small_mnist(path).train, small_mnist(path).validation, test=Sealed())

    worker = start(task=Task(build_model, sealed))
    worker.receive()
    assert [answer.trial for answer in ask(worker, 0, 2)] == [4, 4]
