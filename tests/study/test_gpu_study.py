"""Studies on a GPU: trained to their end, within a limit, foreseen, measured, and alone on their card.

They are skipped where TensorFlow sees no GPU. `PYTHONPATH` and packages as everywhere; `pytest -m gpu` runs them alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from batchopt.errors import DeviceError
from batchopt.events import Event, Noted, Opened, Trained
from batchopt.machine.gpu import Meter, hold
from batchopt.store.tables import epochs_table, machines_table, memory_table, step_times_table
from batchopt.training.messages import Measure, Measured, PredictedMemory, PredictMemory, Ready, Setup
from batchopt.workers.client import Worker
from mnist import build_model

pytestmark = pytest.mark.gpu

MIB = 1 << 20


def some_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:8192], labels[:8192]), validation=(images[8192:9192], labels[8192:9192]))


def more_mnist(path: str | None) -> Dataset:
    """98 MiB to train on, and as much again where a batch is all of it."""
    images, labels = load_mnist().train
    return Dataset(train=(images[:32_768], labels[:32_768]), validation=(images[32_768:33_768], labels[32_768:33_768]))


def study_in(folder: Path, load: Any = some_mnist, largest: int = 8192, **options: Any) -> Study:
    return Study(
        Task(build_model, load),
        SearchSpace([64, 512, largest], (1e-3, 1e-2)),
        Goal(epochs=2),
        name="gpu",
        storage=str(folder / "studies.db"),
        options=Options(**({"device": "gpu:0", "prune": False, "search": "random"} | options)),
    )


def rows(folder: Path, table: sa.Table) -> list[dict[str, Any]]:
    with sa.create_engine(f"sqlite:///{folder}/studies.db").connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def setup(**changes: Any) -> Setup:
    fields: dict[str, Any] = {"data_path": None, "train_examples": None, "device": "gpu:0", "cores": None}
    fields |= {"task": Task(build_model, some_mnist), "engine": "fused-xla", "learning_rate": 1e-3}
    return Setup(**(fields | changes))


def test_a_study_trains_to_its_end_on_a_gpu_and_keeps_what_the_device_tells(tmp_path: Path) -> None:
    """Machine, memory and step times of the probe; peak of each epoch; energy where the card counts it."""
    events: list[Event] = []
    report = study_in(tmp_path).run(Budget(trials=3), tries=[Configuration(64, 0.003)], listener=events.append)
    assert report.trials == {"complete": 3}
    assert report.recommendation is not None
    assert report.recommendation.value > 0.8
    (machine,) = [row["description"] for row in rows(tmp_path, machines_table)]
    assert (machine["kind"], machine["gpus"]) == ("gpu", 1)
    assert machine["driver"]
    assert "cuda" in machine["versions"] or machine["cuda"]
    assert {row["batch_size"] for row in rows(tmp_path, step_times_table)} == {64, 512, 8192}
    assert all(row["fits"] for row in rows(tmp_path, memory_table) if row["batch_size"] in (64, 512, 8192))
    epochs = rows(tmp_path, epochs_table)
    assert len(epochs) == 6
    assert all(row["peak_bytes"] > 9192 * 784 * 4 for row in epochs)
    card = Meter(0).card()
    if card is not None:
        assert all(row["peak_bytes"] < card.memory_bytes for row in epochs)
        assert machine["device_memory_bytes"] == card.memory_bytes
    if Meter(0).joules() is not None:
        # Some of these epochs are shorter than the counter's tick; `test_energy_study.py` has longer ones.
        assert all(row["joules"] is not None and row["joules"] >= 0 for row in epochs)
        assert machine["energy"] == "NVML" and machine["max_power_w"] > 0


def test_a_limit_on_a_gpu_really_holds(tmp_path: Path) -> None:
    """240 MiB hold the data and small batches; what is proposed was tried, and no epoch took more.

    With 190 the data was refused, most likely as TensorFlow hands out what is free whole, unless half of it or 128 MiB
    would be left.
    """
    events: list[Event] = []
    study = study_in(tmp_path, more_mnist, 32_768, memory_limit=240 * MIB, engine="fused-xla")
    study.run(Budget(trials=3), listener=events.append)
    assert len([event for event in events if isinstance(event, Trained)]) == 6
    assert all(row["peak_bytes"] <= 240 * MIB for row in rows(tmp_path, epochs_table))
    (opened,) = [event for event in events if isinstance(event, Opened)]
    assert opened.max_batch_size in (64, 512)


def test_what_the_compiler_foresees_on_a_gpu_is_what_its_allocator_sees() -> None:
    """Or it does not tell, which is said, and ends nothing."""
    worker = Worker(setup())
    try:
        ready = worker.receive()
        assert isinstance(ready, Ready)
        assert ready.machine.kind == "gpu"
        worker.send(PredictMemory((512, 8192)))
        foreseen = worker.receive()
        if not isinstance(foreseen, PredictedMemory):
            foreseen = worker.receive()
        assert isinstance(foreseen, PredictedMemory)
        assert foreseen.refusal or set(foreseen.step_bytes) == {512, 8192}
        worker.send(Measure((512, 8192)))
        for size in (512, 8192):
            answer = worker.receive()
            assert isinstance(answer, Measured)
            assert answer.step_bytes is not None
            if size in foreseen.step_bytes:
                assert 0.9 * foreseen.step_bytes[size] < answer.step_bytes < 2 * foreseen.step_bytes[size] + 64 * MIB
    finally:
        worker.kill()


def test_a_card_belongs_to_one_study_unless_it_is_shared(tmp_path: Path) -> None:
    """Another process really holds it, under the name that studies know it by."""
    code = (
        "import sys, time; from batchopt.machine.gpu import Meter, hold\n"
        "with hold(Meter(0).name):\n    print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DeviceError, match=rf"in use by another study \(process {other.pid}\)"):
            study_in(tmp_path, probe=False).run(Budget(trials=1))
        assert list(tmp_path.iterdir()) == []
        assert study_in(tmp_path, probe=False, share=True).run(Budget(trials=1)).trials == {"complete": 1}
    finally:
        other.kill()
        other.wait()
        if other.stdout is not None:
            other.stdout.close()
    # Let go with its process, and held by a study only while that runs.
    with hold(Meter(0).name):
        pass


def test_without_a_gpu_to_see_a_study_says_so_once_and_trains_on_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    events: list[Event] = []
    study = study_in(tmp_path, device="auto", probe=False, engine="fused")
    assert study.run(Budget(trials=1), listener=events.append).trials == {"complete": 1}
    said = [event.text for event in events if isinstance(event, Noted)]
    assert sum("training on the processor" in text for text in said) == 1
