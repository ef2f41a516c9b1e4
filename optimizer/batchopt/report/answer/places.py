"""A study as one of its machines has it: every trial is evidence there, at what it would have cost there.

Epochs belong to the model and the data, seconds to the machine. So the trials of all machines are handed to the
recommendation with the seconds that this machine's step times predict, and those that do not fit here are left out.
Epochs that were trained side by side on this machine count as those of another one: their seconds are not its own.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchopt.errors import InvalidInput
from batchopt.machine.capacity import Capacity
from batchopt.machine.energy import Power
from batchopt.machine.gpu import has_card
from batchopt.machine.machine import available_cores, processor
from batchopt.machine.step_time import StepTimeFit, StepTimeLaw, fitted_step_time
from batchopt.measured import StepTime
from batchopt.store.history import TrialRecord
from batchopt.store.measurements import MeasuredOn, Measurements, program_fingerprint
from batchopt.store.stamp import Stamp
from batchopt.text import printable
from batchopt.words import counted


@dataclass(frozen=True)
class Place:
    """A machine of a study.

    Attributes:
        fingerprint: its name in the database.
        name: for people, unlike those of the study's other machines.
        seconds_per_epoch: batch size -> seconds; None where it has neither been probed nor trained anything.
        max_batch_size: the largest batch size to be trained; None where nothing says that any is too large.
        largest: the largest that is known to fit, by a real step or epoch; None where none is.
        memory_bytes: of device memory, that training may use; None where nobody said.
        step_time: the law of its step times; None with fewer than three batch sizes.
        power: what it draws, by batch size, as far as epochs that were trained there tell.
    """

    fingerprint: str
    name: str
    seconds_per_epoch: Callable[[int], float] | None
    max_batch_size: int | None
    largest: int | None = None
    memory_bytes: int | None = None
    step_time: StepTimeFit | None = None
    power: Power = field(default_factory=Power)

    def draws(self, batch_size: int, seconds: float) -> float | None:
        """Joules of so many seconds of training there; None where no energy was measured."""
        return self.power(batch_size) * seconds if self.power.known else None

    def trials(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials that fit here, with the seconds that they would have taken here."""
        return [self._here(trial) for trial in trials if self._fits(trial)]

    def _fits(self, trial: TrialRecord) -> bool:
        return self.max_batch_size is None or trial.batch_size is None or trial.batch_size <= self.max_batch_size

    def _here(self, trial: TrialRecord) -> TrialRecord:
        return dataclasses.replace(trial, epochs=[self._epoch_here(trial, epoch) for epoch in trial.epochs])

    def _epoch_here(self, trial: TrialRecord, epoch: dict[str, Any]) -> dict[str, Any]:
        own = epoch["machine"] == self.fingerprint and not epoch["side_by_side"]
        if self.seconds_per_epoch is None or own or trial.batch_size is None:
            return epoch
        seconds = self.seconds_per_epoch(trial.batch_size)
        speed = epoch["examples_per_second"] * epoch["train_seconds"] / seconds
        peak = epoch.get("peak_bytes") if epoch["machine"] == self.fingerprint else None
        joules = self.draws(trial.batch_size, seconds)
        here = {"train_seconds": seconds, "examples_per_second": speed, "peak_bytes": peak, "joules": joules}
        return epoch | here | {"machine": self.fingerprint}


def machines_of(trials: Sequence[TrialRecord], engines: Mapping[str, str]) -> list[str]:
    """The fingerprints of a study's machines, in the order in which they first trained, then those that only joined."""
    return list(dict.fromkeys([*(epoch["machine"] for trial in trials for epoch in trial.epochs), *engines]))


def place_of(
    fingerprint: str,
    *,
    measurements: Measurements,
    stamp: Stamp,
    trials: Sequence[TrialRecord],
    engines: Mapping[str, Any],
    limits: Mapping[str, int | None],
    described: Mapping[str, Any],
    name: str,
    accumulate: bool = False,
) -> Place:
    """What is known of a machine of a study.

    Args:
        fingerprint: the machine's.
        measurements: of the database.
        stamp: the study's.
        trials: all of them.
        engines: how epochs are run on each machine, by fingerprint.
        limits: the device memory that each was told to use, by fingerprint.
        described: the machine, as it describes itself.
        name: the machine's, for people.
        accumulate: whether batches that memory does not hold are trained in micro-batches.
    """
    program = program_fingerprint(dataclasses.asdict(stamp.program))
    key = MeasuredOn(fingerprint, program, engines.get(fingerprint, "fused"))
    trained = _trained_on(fingerprint, trials)
    sizes = [int(size) for size in stamp.space.grid_batch_sizes()]
    limit = limits.get(fingerprint)
    capacity = Capacity(sizes, None, measurements.memory(key, limit), accumulate=accumulate)
    # What was trained there fits, unless it failed since, or the limit was another one, or it was not there as a whole.
    held = capacity.held
    known = [size for size in (capacity.verified, *trained) if size and size <= (held or size)]
    # A job may tell no seconds.
    timed = {size: [epoch for epoch in epochs if epoch["train_seconds"] > 0] for size, epochs in trained.items()}
    whole = {size: epochs for size, epochs in sorted(timed.items()) if epochs and capacity.at_once(size) == size}
    rows = measurements.step_times(key) or [_as_step_time(size, epochs) for size, epochs in whole.items()]
    law = StepTimeLaw(rows, stamp.program.train_examples, capacity.at_once) if rows else None
    if law is not None:
        for size, epochs in trained.items():
            for epoch in epochs:
                law.tell(size, epoch["train_seconds"])
    power = Power(described.get("max_power_w"))
    for size, epochs in trained.items():
        for epoch in epochs:
            power.tell(size, epoch.get("joules"), epoch["train_seconds"])
    return Place(
        fingerprint,
        name,
        law,
        capacity.max_batch_size,
        largest=max(known, default=None),
        memory_bytes=limit or described.get("device_memory_bytes") or None,
        step_time=fitted_step_time(rows, stamp.program.train_examples),
        power=power,
    )


def chosen(on: str | None, machines: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The machine that is meant.

    Args:
        on: the beginning of a fingerprint, or a part of a name, in any case; None for this machine, or else the first.
        machines: descriptions by fingerprint, at least one.
        names: the same machines' names.

    Raises:
        InvalidInput: it is none of them, or more than one.
    """
    if on is None:
        return next((key for key, described in machines.items() if is_this(described)), next(iter(machines)))
    found = [key for key in machines if key.startswith(on.lower())]
    found = found or [key for key in machines if on.lower() in names[key].lower()]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{names[key]} ({key})" for key in found or machines)
    if found:
        raise InvalidInput(
            f"--on {on} is more than one machine of this study: {listed}. Use the beginning of its code."
        )
    raise InvalidInput(
        f"--on {on} is no machine of this study; it has {listed}. Run the study there, or `batchopt probe`, to add one."
    )


def names_of(machines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A name for each machine, by fingerprint: its device, with the code where another one has the same."""
    plain = {key: _name(described) for key, described in machines.items()}
    count = Counter(plain.values())
    return {key: name if count[name] == 1 else f"{name}, {key[:6]}" for key, name in plain.items()}


def _name(described: Mapping[str, Any]) -> str:
    if not described:
        return "a machine that was not described"
    device, cores = printable(described["device"]), described["cores"]
    # Of a machine that a job has named nothing else is known.
    return f"{device}, {counted(cores, 'core')}" if cores else device


def is_this(described: Mapping[str, Any]) -> bool:
    """Whether a machine is this one, as far as can be seen without TensorFlow."""
    if not described or (described["processor"], described["cores"]) != (processor(), available_cores()):
        return False
    return bool((described["kind"] == "gpu") == has_card())


def _trained_on(fingerprint: str, trials: Sequence[TrialRecord]) -> dict[int, list[dict[str, Any]]]:
    """The epochs that were trained on a machine while it did nothing else, by batch size."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for trial in trials:
        for epoch in trial.epochs:
            if trial.batch_size is not None and epoch["machine"] == fingerprint and not epoch["side_by_side"]:
                found[trial.batch_size].append(epoch)
    return found


def _as_step_time(batch_size: int, epochs: Sequence[Mapping[str, Any]]) -> StepTime:
    """What epochs say of a step, where no probe has."""
    seconds = statistics.median(epoch["train_seconds"] / epoch["steps"] for epoch in epochs)
    return StepTime(batch_size, seconds, 0.0, 0.0, len(epochs))
