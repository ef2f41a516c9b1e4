"""What can go wrong with a machine, really done: nothing finished is lost, and the study goes on or says why."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from batchopt.errors import DeviceError, WorkerDied
from batchopt.events import Event, Noted, Opened, Probing, Stepped, Trained, TrialEnded
from batchopt.machine.capacity import Capacity
from batchopt.machine.memory import RESERVE_BYTES, RESERVE_SHARE
from batchopt.store.database import open_database
from batchopt.store.history import TrialRecord, as_trial, open_study, read_trials
from batchopt.store.records import Records
from batchopt.store.tables import checkpoints_table, epochs_table, machines_table, memory_table, step_times_table
from batchopt.workers.starting import recorded_capacity
from commands import worker_processes
from mnist import build_model

MIB = 1 << 20
SIZES = [16, 64, 256, 1024, 4000]


def some_mnist(path: str | None) -> Dataset:
    """12.2 MiB to train on, 1.5 MiB to validate."""
    images, labels = load_mnist().train
    return Dataset(train=(images[:4000], labels[:4000]), validation=(images[4000:4500], labels[4000:4500]))


def pairwise(learning_rate: float) -> Any:
    """Looks at all pairs of a batch: some B x B numbers of memory."""
    import keras
    from keras import ops
    from keras.layers import Dense, Flatten

    class Smoothed(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x + 0.01 * ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(x)) / 100.0), x)

    model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(16), Smoothed(), Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def study_in(
    folder: Path, build: Any = build_model, sizes: Sequence[int] = SIZES, extra: Any = None, **options: Any
) -> Study:
    # Random, as what is proposed is not the subject, and our own search takes seconds to think of it.
    defaults = {"device": "cpu", "engine": "fused", "prune": False, "search": "random"}
    return Study(
        Task(build, some_mnist),
        SearchSpace(list(sizes), (1e-3, 1e-2), extra or {}),
        Goal(epochs=1),
        name="faults",
        storage=str(folder / "studies.db"),
        options=Options(**(defaults | options)),
    )


def plain(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="faults", storage=f"sqlite:///{folder}/studies.db").trials


def rows(folder: Path, table: sa.Table) -> list[dict[str, Any]]:
    with sa.create_engine(f"sqlite:///{folder}/studies.db").connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def study_records(folder: Path) -> list[TrialRecord]:
    database = open_database(f"sqlite:///{folder}/studies.db", create=False)
    try:
        return read_trials(open_study(database, "faults"), Records(database.db))
    finally:
        database.db.dispose()


def notes(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Noted))


@pytest.mark.slow
def test_what_does_not_fit_is_not_proposed(tmp_path: Path) -> None:
    """100 MiB hold the data and small batches of a model whose memory goes with the square of the batch size."""
    events: list[Event] = []
    study_in(tmp_path, pairwise, memory_limit=100 * MIB).run(Budget(trials=4), listener=events.append)
    (opened,) = [event for event in events if isinstance(event, Opened)]
    assert opened.max_batch_size in (256, 1024)
    trials = plain(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert all(trial.params["batch_size"] <= opened.max_batch_size for trial in trials)
    known = {row["batch_size"]: row["fits"] for row in rows(tmp_path, memory_table)}
    assert known[opened.max_batch_size] is True
    assert {row["batch_size"] for row in rows(tmp_path, step_times_table)} <= {*SIZES[: SIZES.index(1024) + 1]}


def test_a_size_far_above_the_least_is_not_out_for_what_a_step_needs_whatever_the_batch(tmp_path: Path) -> None:
    """Gradients of a wide model take as much at 16 as at 1024, and 64 times of that is not there."""

    def wide(learning_rate: float) -> Any:
        import keras
        from keras.layers import Dense, Flatten

        model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(1000, "relu"), Dense(10, "softmax")])
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    events: list[Event] = []
    study_in(tmp_path, wide, [16, 1024], memory_limit=150 * MIB).run(Budget(trials=1), listener=events.append)
    (opened,) = [event for event in events if isinstance(event, Opened)]
    assert opened.max_batch_size is None
    known = {row["batch_size"]: row for row in rows(tmp_path, memory_table)}
    assert all(row["fits"] for row in known.values()) and known[1024]["step_bytes"] < 4 * known[16]["step_bytes"]
    assert set(known) > {16, 1024}


@pytest.mark.slow
def test_memory_that_runs_out_all_the_same_ends_the_trial_and_not_the_study(tmp_path: Path) -> None:
    """Not probed, so nothing is known: the trial is PRUNED with its constraint, larger ones are out."""
    events: list[Event] = []
    tries = [Configuration(16, 0.003), Configuration(4000, 0.003)]
    report = study_in(tmp_path, pairwise, memory_limit=100 * MIB, probe=False).run(
        Budget(trials=3), tries=tries, listener=events.append
    )
    first, second, *others = plain(tmp_path)
    assert (first.state.name, second.state.name) == ("COMPLETE", "PRUNED")
    assert second.constraints["memory"] > 0
    assert [event.note for event in events if isinstance(event, TrialEnded)][1] == "out of memory"
    assert all(trial.params["batch_size"] < 4000 for trial in others)
    assert sum(report.trials.values()) == 3 and report.recommendation is not None
    assert {row["batch_size"]: row["fits"] for row in rows(tmp_path, memory_table)}[4000] is False


@pytest.mark.slow
def test_a_limit_too_small_for_the_least_batch_size_says_what_the_least_is_and_that_is_enough(tmp_path: Path) -> None:
    def wide(learning_rate: float) -> Any:
        import keras
        from keras.layers import Dense, Flatten

        model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(2000, "relu"), Dense(10, "softmax")])
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    options = {"engine": "fit", "memory_limit": 16 * MIB, "sizes": [16]}
    with pytest.raises(DeviceError, match="--memory-limit 16 MiB: batch size 16, the least of the space, needs") as no:
        study_in(tmp_path, wide, **options).run(Budget(trials=1))
    assert list(tmp_path.iterdir()) == []
    least = re.search(r"give --memory-limit (\d+)MiB or more", str(no.value))
    assert least is not None
    options["memory_limit"] = int(least[1]) * MIB
    report = study_in(tmp_path, wide, probe=False, **options).run(Budget(trials=1))
    assert report.trials == {"complete": 1}


@pytest.mark.slow
def test_data_that_does_not_fit_on_the_device_stays_on_the_host(tmp_path: Path) -> None:
    events: list[Event] = []
    report = study_in(tmp_path, sizes=[64], engine=None, memory_limit=13 * MIB).run(
        Budget(trials=1), tries=[Configuration(64, 0.003)], listener=events.append
    )
    assert "the data, 13 MiB, does not fit on the device" in notes(events)
    (opened,) = [event for event in events if isinstance(event, Opened)]
    assert opened.engine == "fit"
    assert report.recommendation is not None
    assert report.recommendation.value > 0.5


@pytest.mark.slow
def test_a_build_model_that_allocates_more_than_the_machine_has_is_that_trials_end(tmp_path: Path) -> None:
    """NumPy's memory, of which TensorFlow knows nothing: the worker's own limit makes it fail."""

    def greedy(learning_rate: float) -> Any:
        if learning_rate == 0.005:
            np.ones(40 << 30, np.uint8)
        return build_model(learning_rate)

    tries = [Configuration(64, 0.005), Configuration(64, 0.003)]
    study_in(tmp_path, greedy, memory_limit=100 * MIB, probe=False).run(Budget(trials=2), tries=tries)
    trials = plain(tmp_path)
    assert [trial.state.name for trial in trials] == ["PRUNED", "COMPLETE"]
    assert trials[0].constraints["memory"] > 0
    assert rows(tmp_path, memory_table) == []


@pytest.mark.slow
def test_memory_that_runs_out_by_an_extra_dimension_says_nothing_of_batch_sizes(tmp_path: Path) -> None:
    """It runs out when the step is traced; a larger batch of another model is trained all the same."""

    def sized(learning_rate: float, gibibytes: int) -> Any:
        import keras
        from keras.layers import Dense, Flatten

        class Greedy(keras.layers.Layer):
            def call(self, x: Any, training: bool = False) -> Any:
                return x + 0 * np.ones((gibibytes << 30) + 1 if training else 1, np.uint8)[0]

        # Units tell the models apart, for whoever keeps compiled ones.
        layers = [Flatten(), Dense(1 + gibibytes), Greedy(), Dense(10, "softmax")]
        model = keras.Sequential([keras.Input((28, 28)), *layers])
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    tries = [Configuration(64, 0.003, {"gibibytes": 40}), Configuration(256, 0.003, {"gibibytes": 0})]
    # The middle of the space is looked at beforehand, and has to fit.
    extra = {"gibibytes": optuna.distributions.CategoricalDistribution([0, 40])}
    study_in(tmp_path, sized, extra=extra, memory_limit=100 * MIB, probe=False).run(Budget(trials=2), tries=tries)
    assert [trial.state.name for trial in plain(tmp_path)] == ["PRUNED", "COMPLETE"]
    assert plain(tmp_path)[0].constraints["memory"] > 0
    assert rows(tmp_path, memory_table) == []


@pytest.mark.slow
def test_a_configuration_that_build_model_refuses_is_that_trials_end_and_held_against_its_corner(
    tmp_path: Path,
) -> None:
    """By `optuna.TrialPruned`; the worker goes on. So it is for one without room, in a worker of its own."""

    def choosy(learning_rate: float, units: int) -> Any:
        if units > 100:
            raise MemoryError("no room") if units > 200 else optuna.TrialPruned("too wide")
        return build_model(learning_rate)

    events: list[Event] = []
    extra = {"units": optuna.distributions.IntDistribution(8, 256, log=True)}
    tries = [Configuration(1024, 0.003, {"units": units}) for units in (150, 250, 16)]
    study = study_in(tmp_path, choosy, sizes=[256, 1024], extra=extra, probe=False)
    report = study.run(Budget(trials=3), tries=tries, listener=events.append)
    ended = {event.trial: (event.state, event.note) for event in events if isinstance(event, TrialEnded)}
    assert ended == {0: ("pruned", "too wide"), 1: ("pruned", "out of memory"), 2: ("complete", "")}
    assert report.trials == {"pruned": 2, "complete": 1}
    records = study_records(tmp_path)
    assert [as_trial(record, held=False, max_epochs=1).reason for record in records] == ["untrainable"] * 2 + [""]


def test_a_worker_killed_in_mid_epoch_costs_no_finished_epoch(tmp_path: Path) -> None:
    """Signal 9 from within the hundredth step of a trial's second epoch, far from the end of memory."""
    struck = tmp_path / "struck"

    def mortal(learning_rate: float) -> Any:
        import keras
        import tensorflow as tf

        steps = 0

        def strike() -> Any:
            nonlocal steps
            steps += 1
            if steps == 350 and not struck.exists():
                struck.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return np.int64(0)

        class Mortal(keras.layers.Layer):
            def call(self, x: Any, training: bool = False) -> Any:
                with tf.control_dependencies([tf.numpy_function(strike, [], tf.int64)] if training else []):
                    return tf.identity(x)

        layers = [keras.Input((28, 28)), Mortal(), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    events: list[Event] = []
    study = study_in(tmp_path, mortal, probe=False)
    study.goal = Goal(epochs=2)
    report = study.run(Budget(trials=1), tries=[Configuration(16, 0.003)], listener=events.append)
    assert struck.exists()
    assert report.trials == {"complete": 1}
    # After the first epoch, and before the second.
    said = [event for event in events if isinstance(event, Trained | Noted)]
    assert isinstance(said[0], Trained)
    assert isinstance(said[1], Noted)
    assert "trial 0: the worker ended by signal SIGKILL" in said[1].text
    assert list(plain(tmp_path)[0].intermediate_values) == [1, 2]


@pytest.mark.slow
def test_a_worker_killed_at_the_end_of_memory_is_taken_to_have_met_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signal 9, which the kernel sends too, while what is foretold is above 90 % of the device."""

    def nearly_full(*arguments: Any) -> Capacity:
        capacity = recorded_capacity(*arguments)
        assert capacity.memory is not None
        bare = 0.95 * capacity.memory.capacity_bytes - RESERVE_BYTES
        capacity.record_prediction(1024, round(bare / (1 + RESERVE_SHARE)) - capacity.memory.resident_bytes)
        return capacity

    def strike(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.trial == 0:
            for child in worker_processes():
                child.kill()

    monkeypatch.setattr("batchopt.study.study.recorded_capacity", nearly_full)
    tries = [Configuration(1024, 0.003), Configuration(16, 0.003)]
    study_in(tmp_path, memory_limit=200 * MIB, probe=False).run(Budget(trials=2), tries=tries, listener=strike)
    assert [trial.state.name for trial in plain(tmp_path)] == ["PRUNED", "COMPLETE"]
    assert plain(tmp_path)[0].constraints["memory"] > 0
    assert {row["batch_size"]: row["fits"] for row in rows(tmp_path, memory_table)} == {1024: False}


@pytest.mark.slow
def test_a_worker_that_is_killed_with_nothing_to_do_is_replaced(tmp_path: Path) -> None:
    """Two workers and one trial: when it is done, one is idle and the other still on its way."""
    events: list[Event] = []
    struck: list[int] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialEnded) and not struck:
            struck.extend(child.pid for child in worker_processes())
            for pid in struck:
                os.kill(pid, signal.SIGKILL)

    report = study_in(tmp_path, workers=2, probe=False).run(Budget(trials=1), listener=listen)
    assert len(struck) == 2
    assert report.trials == {"complete": 1}
    assert notes(events).count("by signal SIGKILL while it was idle; restarting it") == 2


@pytest.mark.slow
@pytest.mark.parametrize("memory_limit", [100 * MIB, None], ids=["limited", "unlimited"])
def test_a_worker_that_is_killed_in_the_probe_says_nothing_about_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int | None
) -> None:
    monkeypatch.setattr("batchopt.workers.probing.TIMING_SECONDS", 0.1)
    events: list[Event] = []
    struck: list[int] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Probing) and not struck:
            struck.extend(child.pid for child in worker_processes())
            os.kill(struck[0], signal.SIGKILL)

    report = study_in(tmp_path, memory_limit=memory_limit).run(
        Budget(trials=1), tries=[Configuration(1024, 0.003)], listener=listen
    )
    assert report.trials == {"complete": 1}
    assert "by signal SIGKILL while the machine was measured; another one takes its place" in notes(events)
    assert all(row["fits"] for row in rows(tmp_path, memory_table))
    assert 4000 in {row["batch_size"] for row in rows(tmp_path, memory_table)}


@pytest.mark.slow
def test_workers_that_never_come_to_be_ready_end_the_study_and_are_no_trials_fault(tmp_path: Path) -> None:
    def deadly(path: str | None) -> Dataset:
        os.kill(os.getpid(), signal.SIGKILL)
        return some_mnist(path)

    study = study_in(tmp_path, probe=False)
    study.task = Task(build_model, deadly)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        study.run(Budget(trials=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cores_that_are_taken_away_between_two_trials_make_another_machine(tmp_path: Path) -> None:
    """The worker that comes after is told apart, and its times from those of the first."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one core cannot be taken away")
    events: list[Event] = []

    def take_away(event: Event) -> None:
        events.append(event)
        if isinstance(event, Trained) and event.trial == 0:
            os.sched_setaffinity(0, {min(before)})
            for child in worker_processes():
                child.kill()

    tries = [Configuration(64, 0.003), Configuration(64, 0.01)]
    try:
        report = study_in(tmp_path, probe=False).run(Budget(trials=2), tries=tries, listener=take_away)
    finally:
        os.sched_setaffinity(0, before)
    assert report.trials == {"complete": 2}
    assert f"the machine has changed: {len(before)} cores before, 1 now" in notes(events)
    assert len(rows(tmp_path, machines_table)) == 2


@pytest.mark.slow
def test_two_workers_have_cores_of_their_own_and_their_times_are_marked(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core cannot be shared out")
    whole = os.sched_getaffinity(0)
    shares: list[set[int]] = []

    def look(event: Event) -> None:
        """The shares of both workers, once each has taken its own: a process does a moment after it was started."""
        if not isinstance(event, Trained):
            return
        until = time.monotonic() + 60
        while time.monotonic() < until:
            shares[:] = [set(child.cpu_affinity()) for child in worker_processes()]
            if whole not in shares:
                return
            time.sleep(0.05)

    study_in(tmp_path, workers=2, sizes=[16], probe=False).run(Budget(trials=8), listener=look)
    assert len(shares) == 2
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == whole
    assert all(row["side_by_side"] for row in rows(tmp_path, epochs_table))


@pytest.mark.gpu
def test_a_gpu_that_disappears_between_two_trials_stops_the_study_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hide(event: Event) -> None:
        if isinstance(event, Trained) and event.trial == 0:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
            for child in worker_processes():
                child.kill()

    tries = [Configuration(64, 0.003), Configuration(64, 0.01)]
    with pytest.raises(DeviceError, match="is gone"):
        study_in(tmp_path, device="auto", probe=False).run(Budget(trials=2), tries=tries, listener=hide)
    assert plain(tmp_path)[0].state.name == "COMPLETE"


@pytest.mark.slow
def test_a_damaged_checkpoint_starts_its_trial_over_and_a_trial_that_kills_its_workers_fails(tmp_path: Path) -> None:
    """A byte flipped in the database and then signal 9; and a model whose every worker dies before its first epoch."""

    def deadly(learning_rate: float) -> Any:
        if learning_rate == 0.005:
            os.kill(os.getpid(), signal.SIGKILL)
        return build_model(learning_rate)

    struck: list[int] = []
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Trained) and event.trial == 0 and event.figures.epoch >= 3 and not struck:
            with sa.create_engine(f"sqlite:///{tmp_path}/studies.db").begin() as connection:
                epoch, content = connection.execute(
                    sa.select(checkpoints_table.c.epoch, checkpoints_table.c.content)
                ).one()
                connection.execute(checkpoints_table.update().values(content=bytes([content[0] ^ 1]) + content[1:]))
            struck.append(epoch)
            for child in worker_processes():
                child.kill()

    tries = [Configuration(256, 0.003), Configuration(64, 0.005)]
    study = study_in(tmp_path, deadly, probe=False)
    study.goal = Goal(epochs=12)
    study.run(Budget(trials=2), tries=tries, listener=listen)
    assert len(struck) == 1
    sound, deaths = plain(tmp_path)
    assert (sound.state.name, len(sound.intermediate_values)) == ("COMPLETE", 12)
    assert "trial 0: its checkpoint is damaged (its SHA-256 is not the one that was written with it)" in notes(events)
    assert [event.figures.epoch for event in events if isinstance(event, Trained)].count(1) == 2
    assert deaths.state.name == "FAIL"
    assert "SIGKILL" in deaths.user_attrs["failure"]
    assert notes(events).count("trial 1: the worker ended by signal SIGKILL") == 2
    assert rows(tmp_path, checkpoints_table) == []
