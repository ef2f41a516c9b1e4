"""A worker process: asked over its socket, killed with real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from optimizer import Dataset, Task
from optimizer.errors import DataError
from optimizer.training.client import Died, Worker
from optimizer.training.messages import (
    EpochDone,
    Failed,
    Foresee,
    Foreseen,
    Measure,
    Measured,
    Ready,
    Save,
    Saved,
    Setup,
    StepTimes,
    Train,
)
from studies.data import load_mnist
from studies.mnist import build_model

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
    ready = first.receive()
    assert isinstance(ready, Ready)
    assert (ready.program.train_examples, ready.program.validation_examples) == (2000, 500)
    assert (ready.engine, ready.machine.kind, ready.parameters) == ("fused", "cpu", 101_770)
    whole = ask(first, 0, 4)
    assert [answer.figures.epoch for answer in whole] == [1, 2, 3, 4]
    assert whole[-1].figures.train_loss < whole[0].figures.train_loss
    assert whole[0].figures.steps == 32
    assert whole[0].compile_seconds > 0
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
        assert answer.figures.validation_accuracy == reference.figures.validation_accuracy


def test_a_killed_worker_is_noticed_with_the_signal_that_killed_it(start: Start) -> None:
    worker = start()
    worker.receive()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(Died, match="SIGKILL") as death:
        ask(worker, 0, 1000)
    assert death.value.exit_code == -signal.SIGKILL


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    """No orphan goes on heating the device."""
    code = (
        "import sys, time; from tests.training.test_worker import setup; from optimizer.training.client import Worker;"
        "w = Worker(setup()); w.receive(); print(w.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_an_error_in_the_users_code_comes_back_with_its_traceback(start: Start) -> None:
    def broken(learning_rate: float) -> Any:
        return 1 / 0

    answer = start(task=Task(broken, small_mnist)).receive()
    assert isinstance(answer, Failed)
    assert answer.kind == "task"
    assert "in broken" in answer.message
    assert "ZeroDivisionError" in answer.message


def test_what_the_user_can_mend_comes_back_as_one_line(start: Start) -> None:
    def missing(path: str | None) -> Dataset:
        raise DataError(f"data file {path} is not there")

    answer = start(task=Task(build_model, missing), data_path="/nowhere.npz").receive()
    assert answer == Failed("input", "DataError", "data file /nowhere.npz is not there")


def test_what_the_compiler_foresees_is_what_the_allocator_sees(start: Start) -> None:
    """XLA's buffer assignment, up to the allocator, which hands out a free piece whole unless it is twice too large."""
    worker = start(engine="fused-xla")
    worker.receive()
    sizes = (500, 2000)
    worker.send(Foresee(sizes))
    foreseen = worker.receive()
    assert isinstance(foreseen, Foreseen)
    worker.send(Measure(sizes))
    for size in sizes:
        answer = worker.receive()
        assert isinstance(answer, Measured)
        assert answer.step_bytes is not None
        assert foreseen.step_bytes[size] <= answer.step_bytes < 2 * foreseen.step_bytes[size] + (1 << 20)
    assert worker.receive() == StepTimes(())
    assert foreseen.step_bytes[2000] > foreseen.step_bytes[500] + (4 << 20)


def test_steps_are_timed_and_the_weights_are_as_they_were(start: Start) -> None:
    reference, measured = start(), start()
    reference.receive()
    measured.receive()
    measured.send(Measure((64, 512), seconds=0.5))
    assert [measured.receive().batch_size for _ in range(2)] == [64, 512]
    times = measured.receive()
    assert isinstance(times, StepTimes)
    assert [row.batch_size for row in times.rows] == [64, 512]
    assert 0 < times.rows[0].step_time_s < times.rows[1].step_time_s
    assert all(row.count >= 1 and row.epoch_overhead_s >= 0 for row in times.rows)
    curves = [[answer.figures.train_loss for answer in ask(worker, 0, 2)] for worker in (reference, measured)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_data_on_the_device_takes_what_it_has_whatever_its_place_on_the_host(start: Start) -> None:
    """Arrays that lie at a multiple of 64 bytes are shared by TensorFlow unless they are moved."""
    worker = start()
    ready = worker.receive()
    assert isinstance(ready, Ready)
    assert ready.memory.resident_bytes >= 2500 * 785 * 4


def test_a_gpu_that_is_not_there_is_said_so(start: Start) -> None:
    answer = start(device="gpu:7").receive()
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.error) == ("input", "DeviceError")
    assert "gpu:7" in answer.message


def test_a_loss_that_is_not_finite_ends_the_trial_there(start: Start) -> None:
    worker = start()
    worker.receive()
    worker.send(Train(0, 0, 8, 1e30, {}, 0, 5))
    answer = worker.receive()
    assert isinstance(answer, EpochDone)
    assert answer.figures.diverged
    # It did not go on to the second epoch, and can be asked again.
    assert ask(worker, 0, 1, trial=1)[0].trial == 1


def test_trials_in_a_row_do_not_grow_the_worker(start: Start) -> None:
    worker = start()
    worker.receive()
    sizes = [ask(worker, 0, 1, trial=trial)[0].worker_bytes for trial in range(40)]
    assert sizes[-1] - sizes[0] < 60 * 2**20


def test_what_user_code_prints_stays_out_of_standard_output() -> None:
    code = (
        "import sys; from optimizer import Task; from optimizer.training.client import Worker;"
        "from tests.training.test_worker import setup, small_mnist; from studies.mnist import build_model\n"
        "def loud(rate):\n    print('LOUD'); return build_model(rate)\n"
        "w = Worker(setup(task=Task(loud, small_mnist))); w.receive(); w.kill()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOUD" not in done.stdout + done.stderr


def test_extra_dimensions_reach_build_model(start: Start) -> None:
    def sized(learning_rate: float, units: int) -> Any:
        import keras
        from keras.layers import Dense, Flatten

        model = keras.Sequential([Flatten(), Dense(units, "relu"), Dense(10, "softmax")])
        model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    worker = start(task=Task(sized, small_mnist), extra={"units": 3})
    assert worker.receive().parameters == 784 * 3 + 3 + 3 * 10 + 10
    for units in (3, 5):
        worker.send(Train(units, 0, 64, 0.1, {"units": units}, 0, 1))
        assert np.isfinite(worker.receive().figures.train_loss)
