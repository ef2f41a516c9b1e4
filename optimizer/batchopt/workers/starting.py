"""Workers and their slots: what each is told, how the first one comes to be ready, what it finds out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from batchopt.errors import DeviceError, InvalidInput, StorageNotFound
from batchopt.events import Listener
from batchopt.machine.capacity import Capacity
from batchopt.machine.machine import core_shares
from batchopt.measured import EngineName
from batchopt.question.goal import Goal
from batchopt.question.options import Budget, Options, gpu_indices
from batchopt.question.space import SearchSpace
from batchopt.question.task import Task
from batchopt.signals import Interruption
from batchopt.store.access import opened
from batchopt.store.filesystem import special_file
from batchopt.store.measurements import Measurements, measured_on
from batchopt.store.records import Records
from batchopt.text import first_line
from batchopt.training.messages import ClusterShare, Ready, Setup
from batchopt.workers.client import Worker
from batchopt.workers.cluster import LOCAL
from batchopt.workers.probing import OutOfMemory, TooSmall, least_limit, probe, started, too_small
from batchopt.workers.slot import Slot

UNBOUNDED_TRIALS = 100
"""Stands for the number of trials where only time ends a study."""


def first_setup(
    task: Task,
    options: Options,
    space: SearchSpace,
    *,
    goal: Goal,
    budget: Budget,
    known_engines: Mapping[str, EngineName],
    cluster: ClusterShare | None = None,
) -> Setup:
    """What the first worker is told; `cluster` where it is in one.

    Raises:
        InvalidInput: data that would be waited for for ever.
    """
    if options.data is not None and (kind := special_file(Path(options.data))):
        raise InvalidInput(f"--data {options.data}: that is {kind}. Give the path of a file or a folder.")
    _, rate = space.from_unit([0.5, 0.5])
    indices = gpu_indices(options.device)
    trials = budget.trials or UNBOUNDED_TRIALS
    return Setup(
        task=task,
        data_path=options.data,
        train_examples=options.train_examples,
        device=f"gpu:{indices[0]}" if indices else options.device,
        cores=_core_shares(options)[0],
        engine=options.pinned_engine,
        deterministic=options.deterministic,
        learning_rate=rate,
        extra=space.middle_of_extra(),
        known_engines=dict(known_engines),
        memory_limit=options.memory_limit,
        share=options.share,
        accumulate=bool(options.accumulate),
        cluster=cluster,
        batch_sizes=min(trials, len(space.grid_batch_sizes())),
        epochs=trials * goal.epochs,
        trial_epochs=goal.epochs,
    )


def further_slots(first: Slot, options: Options, workers: ExitStack) -> list[Slot]:
    """The other workers, started; they take the engine that the first one chose.

    Args:
        first: the first worker's slot.
        options: how many there are to be, and where.
        workers: ends them.

    On GPUs there is one worker on each. On a processor each gets its share of the cores. In a cluster Ray places them.

    Raises:
        InvalidInput: more workers than GPUs, which would share them.
    """
    assert first.ready is not None
    machine, setup = first.ready.machine, dataclasses.replace(first.worker.setup, engine=first.ready.engine)

    def slot(setup: Setup) -> Slot:
        return workers.enter_context(Slot(Worker(setup)))

    if setup.cluster is not None and (machine.kind == "gpu" or options.ray != LOCAL):
        return [slot(setup) for _ in range(1, setup.cluster.workers)]
    if machine.kind == "cpu":
        return [slot(dataclasses.replace(setup, cores=share)) for share in _core_shares(options)[1:]]
    indices = gpu_indices(options.device) or tuple(range(machine.gpus))
    count = 1 if options.deterministic else options.workers or len(indices)
    if count > len(indices) and not options.share:
        raise InvalidInput(
            f"--workers {count}: one worker trains on each GPU, and there is {len(indices)} to use. "
            "Use --share to put several on one; their timings then mean little."
        )
    setup = dataclasses.replace(setup, share=options.share)
    return [
        slot(dataclasses.replace(setup, device=f"gpu:{indices[number % len(indices)]}")) for number in range(1, count)
    ]


def _core_shares(options: Options) -> list[tuple[int, ...] | None]:
    """Each worker's own cores of this machine; None where it has them all, or is on another machine."""
    count = options.workers or 1
    if count == 1 or options.ray not in (None, LOCAL):
        return [None] * count
    return list(core_shares(count))


def ready_slot(setup: Setup, *, smallest: int, interruption: Interruption, listener: Listener) -> Slot:
    """A worker that is ready, its data on the device, or on the host where only that has room.

    Args:
        setup: what it is told.
        smallest: the least batch size of the space.
        interruption: looked at while it is waited for.
        listener: told what it remarks.

    Raises:
        DeviceError: not even the model fits; it says what would.
        BatchoptError: something the user can mend.
    """
    why = ""
    for held in (True, False):
        place = dataclasses.replace(setup, hold_data=held and setup.hold_data)
        try:
            return Slot(*started(place, interruption, listener))
        except OutOfMemory as shortage:
            why = first_line(shortage)
        if not setup.hold_data or setup.engine == "fit":
            # It was on the host already.
            break
    need = None if setup.memory_limit is None else least_limit(setup, smallest, interruption)
    if setup.memory_limit is None or need is None or need <= setup.memory_limit:
        # What ran out was not the batch's: tracing the model takes memory too.
        raise DeviceError(f"not enough memory to set up the study: {why}")
    raise too_small(setup.memory_limit, smallest, need)


def measured(
    slot: Slot, capacity: Capacity, *, timed: bool, interruption: Interruption, listener: Listener
) -> Capacity:
    """The probe; with the data on the host where it leaves no room for training on the device.

    Args:
        slot: with a worker that is ready; another one may have its place afterwards.
        capacity: what is known already.
        timed: whether steps are to be timed.
        interruption, listener: as for `ready_slot`.

    Returns:
        What is known of the machine.

    Raises:
        DeviceError: not even the least batch size fits; it says what would.
        BatchoptError: something the user can mend.
    """
    while True:
        assert slot.ready is not None
        try:
            examples = slot.ready.program.train_examples
            probe(slot, capacity, timed=timed, train_examples=examples, listener=listener, interruption=interruption)
            return capacity
        except TooSmall:
            setup, need = slot.worker.setup, capacity.needed(capacity.sizes[0])
            slot.worker.kill()
            if not slot.ready.data_held or setup.engine not in (None, "fit"):
                if setup.memory_limit is not None or need is None:
                    need = least_limit(setup, capacity.sizes[0], interruption)
                raise too_small(setup.memory_limit, capacity.sizes[0], need) from None
            setup = dataclasses.replace(setup, hold_data=False)
            other = ready_slot(setup, smallest=capacity.sizes[0], interruption=interruption, listener=listener)
            assert other.ready is not None
            slot.worker, slot.ready = other.worker, other.ready
            capacity = Capacity(
                capacity.sizes,
                slot.ready.memory,
                machine=slot.ready.machine.fingerprint,
                accumulate=capacity.accumulate,
                max_power_w=slot.ready.machine.max_power_w,
            )


def known_capacity(
    slot: Slot, space: SearchSpace, options: Options, storage: str, *, interruption: Interruption, listener: Listener
) -> Capacity:
    """What a database knows of a worker's machine, measured where nothing tells how large micro-batches may be.

    Arguments and errors as for `recorded_capacity` and `measured`.
    """
    assert slot.ready is not None
    capacity = recorded_capacity(slot.ready, space, dataclasses.replace(options, probe=False), storage)
    if not capacity.accumulate or capacity.verified:
        return capacity
    return measured(slot, capacity, timed=False, interruption=interruption, listener=listener)


def new_capacity(ready: Ready, space: SearchSpace, *, accumulate: bool = False) -> Capacity:
    """Nothing is known yet but the device's memory."""
    sizes = [int(size) for size in space.grid_batch_sizes()]
    return Capacity(
        sizes,
        ready.memory,
        machine=ready.machine.fingerprint,
        accumulate=accumulate,
        max_power_w=ready.machine.max_power_w,
    )


def recorded_capacity(ready: Ready, space: SearchSpace, options: Options, storage: str) -> Capacity:
    """What a database knows of this program on this machine; nothing where that is to be measured anew.

    What was measured with another TensorFlow holds no longer, and is used only where nothing may be measured.
    """
    capacity = new_capacity(ready, space, accumulate=bool(options.accumulate))
    if options.probe:
        return capacity
    # Optuna's own, or one whose tables another process is making in this moment, knows nothing either.
    with suppress(StorageNotFound), opened(storage, plain=True) as database:
        if not Measurements(database.db).kept():
            return capacity
        versions = Records(database.db).machines().get(capacity.machine, {}).get("versions", {})
        if options.probe is None and versions.get("tensorflow") != ready.machine.versions.get("tensorflow"):
            return capacity
        measurements = Measurements(database.db)
        key = measured_on(ready.machine, ready.program, ready.engine)
        rows = measurements.memory(key, options.memory_limit)
        capacity = Capacity(
            capacity.sizes,
            ready.memory,
            rows,
            machine=capacity.machine,
            recorded=True,
            accumulate=capacity.accumulate,
            max_power_w=ready.machine.max_power_w,
        )
        capacity.record_step_times(measurements.step_times(key), ready.program.train_examples)
    return capacity
