"""Where workers sit on a machine that is made up, and what a database that is not tells of one."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from batchopt import Budget, Dataset, Goal, Options, SearchSpace, Task
from batchopt.errors import InvalidInput
from batchopt.events import Event, Noted
from batchopt.machine.machine import Machine
from batchopt.measured import DeviceMemory, MemoryRow, StepTime
from batchopt.question.task import ProgramStamp
from batchopt.store.database import open_database
from batchopt.store.measurements import Measurements, measured_on
from batchopt.store.records import Records
from batchopt.training.messages import ClusterShare, Failed, Ready, Remark, Setup
from batchopt.workers.probing import Room
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, further_slots, recorded_capacity

SPACE = SearchSpace([16, 64, 256], (1e-3, 1e-2))
PROGRAM = ProgramStamp("model", "data", train_examples=1000, validation_examples=100, metric="accuracy")


class MadeUpWorker:
    """What it was told, and whether it was killed."""

    node = ""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.killed = False

    def kill(self) -> None:
        self.killed = True


def ready_on(gpus: int = 0, tensorflow: str = "2.21.0") -> Ready:
    kind: Any = "gpu" if gpus else "cpu"
    machine = Machine("device", kind, "processor", 8, 1 << 34, {"tensorflow": tensorflow}, gpus=gpus)
    return Ready(machine, PROGRAM, 10, "fused", (), DeviceMemory(1 << 30, 1 << 20))


def first_slot(options: Options, *, gpus: int) -> Slot:
    setup = Setup(Task(lambda rate: None, lambda path: Dataset(())), None, None, options.device, None, None, 1e-3)
    worker: Any = MadeUpWorker(setup)
    return Slot(worker, ready_on(gpus))


@pytest.mark.parametrize(
    ("device", "workers", "share", "others"),
    [
        ("auto", None, False, ["gpu:1", "gpu:2"]),
        ("gpu", 2, False, ["gpu:1"]),
        ("gpu:0,2", None, False, ["gpu:2"]),
        ("gpu:2", None, False, []),
        ("gpu:0,2", 4, True, ["gpu:2", "gpu:0", "gpu:2"]),
    ],
)
def test_one_worker_sits_on_each_gpu(
    device: str, workers: int | None, share: bool, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that `--device` names; they take the engine that the first one chose."""
    monkeypatch.setattr("batchopt.workers.starting.Worker", MadeUpWorker)
    options = Options(device=device, workers=workers, share=share)
    with ExitStack() as workers:
        slots = further_slots(first_slot(options, gpus=3), options, workers)
    assert [slot.worker.setup.device for slot in slots] == others
    assert all(slot.worker.setup.engine == "fused" and slot.worker.setup.share == share for slot in slots)
    assert all(slot.worker.killed for slot in slots)  # type: ignore[attr-defined]


def test_more_workers_than_gpus_are_refused_unless_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchopt.workers.starting.Worker", MadeUpWorker)
    options = Options(device="gpu", workers=4)
    with pytest.raises(InvalidInput, match=r"--workers 4: one worker trains on each GPU, and there is 3.*--share"):
        further_slots(first_slot(options, gpus=3), options, ExitStack())


def keep(storage: str, ready: Ready) -> None:
    database = open_database(storage, create=True)
    Records(database.db).add_machine(ready.machine)
    key = measured_on(ready.machine, ready.program, ready.engine)
    Measurements(database.db).add_memory(key, None, [MemoryRow(64, 1 << 20, True), MemoryRow(256, None, False)])
    Measurements(database.db).add_step_times(key, [StepTime(64, 1e-3, 1e-5, 0.0, 5)])
    database.db.dispose()


@pytest.mark.parametrize(
    ("probe", "tensorflow", "known"),
    [
        (None, "2.21.0", True),
        (None, "2.22.0", False),
        (False, "2.22.0", True),
        (True, "2.21.0", False),
    ],
)
def test_what_was_measured_is_used_until_it_is_to_be_measured_anew(
    probe: bool | None, tensorflow: str, known: bool, tmp_path: Path
) -> None:
    """By `--probe`, or because TensorFlow is another one, unless nothing may be measured."""
    storage = str(tmp_path / "studies.db")
    keep(storage, ready_on())
    capacity = recorded_capacity(ready_on(tensorflow=tensorflow), SPACE, Options(probe=probe), storage)
    assert capacity.recorded is known
    assert capacity.max_batch_size == (64 if known else None)
    assert [row.batch_size for row in capacity.step_rows] == ([64] if known else [])


def test_what_is_measured_anew_takes_the_place_of_all_that_was_known(tmp_path: Path) -> None:
    storage = str(tmp_path / "studies.db")
    keep(storage, ready_on())
    database = open_database(storage, create=False)
    measurements, key = Measurements(database.db), measured_on(ready_on().machine, PROGRAM, "fused")
    measurements.add_memory(key, 100, [MemoryRow(16, None, True)])
    measurements.forget(key, None)
    assert (measurements.memory(key, None), measurements.step_times(key)) == ([], [])
    assert measurements.memory(key, 100) == [MemoryRow(16, None, True)]
    database.db.dispose()


def test_a_worker_that_cannot_give_the_state_it_holds_says_why_and_is_not_believed_again() -> None:
    """So that the trial which is given to it next does not count its death."""
    slot = first_slot(Options(), gpus=0)
    said: list[object] = [Remark("by the way"), Failed("memory", "ResourceExhaustedError", "OOM when\nallocating")]
    slot.worker.send = lambda request: None  # type: ignore[method-assign]
    slot.worker.receive = lambda: said.pop(0)  # type: ignore[method-assign,assignment,return-value]
    assert slot.saved_state(3) == "allocating"


def test_a_cluster_without_room_is_waited_for_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchopt.workers.probing.ROOM_SECONDS", 0.0)
    slot, said = first_slot(Options(), gpus=0), list[Event]()
    room = Room(said.append)
    room.waited_for([slot.worker])
    assert said == []
    slot.worker.setup = dataclasses.replace(slot.worker.setup, cluster=ClusterShare(4, 1.0, 2))
    for _ in range(3):
        time.sleep(0.001)
        Room.waited_for(room, [slot.worker])
    texts = [event.text for event in said if isinstance(event, Noted)]
    assert texts == ["waiting for the cluster: it has no room yet for a worker, which needs 4 CPUs and 1 GPUs"]


def test_data_that_would_be_waited_for_for_ever_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    options = Options(data=str(tmp_path / "data.npz"))
    task = Task(lambda rate: None, lambda path: Dataset(()))
    with pytest.raises(InvalidInput, match=r"--data .*data\.npz: that is a pipe\. Give the path of a file or a folder"):
        first_setup(task, options, SPACE, goal=Goal(), budget=Budget(), known_engines={})
