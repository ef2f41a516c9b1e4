"""Real steps on the device, measured: what they take in memory and in time, and what the compiler says beforehand."""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from batchopt.machine.machine import DeviceKind, Machine, host_memory
from batchopt.measured import DeviceMemory, StepTime
from batchopt.training.messages import Measured, PredictedMemory, StepTimes
from batchopt.training.probe import REFUSALS
from batchopt.training.program import Program
from batchopt.training.raised import reason

ROUND_SECONDS = 0.2
"""One timing of one batch size: long against the clock and one slow step, short enough for several rounds of all."""

ROUNDS = 5

HOST_RESERVE_BYTES = 512 << 20
"""Of the host's free memory, left to the compiler and to other programs."""

LITTER_SHARE = 0.01
"""Of the device's memory: what may lie there unused before it is collected, which takes a while."""

GPU_SHARE = 0.95
"""Of a GPU's free memory; the rest goes to CUDA's own context and libraries."""

UNKNOWN_BYTES = 1 << 60
"""The capacity of a GPU whose driver does not tell: only a real failure shows its end."""


class Gauge:
    """The device's memory as TensorFlow's allocator counts it."""

    def __init__(self, kind: DeviceKind) -> None:
        self._device = f"{kind.upper()}:0"

    def in_use(self) -> int:
        """Bytes in use now."""
        return int(tf.config.experimental.get_memory_info(self._device)["current"])

    def peak(self) -> int:
        """The most bytes in use since `reset`."""
        return int(tf.config.experimental.get_memory_info(self._device)["peak"])

    def reset(self) -> None:
        """Start a new peak."""
        tf.config.experimental.reset_memory_stats(self._device)


def capacity_bytes(machine: Machine, memory_limit: int | None, in_use: int) -> int:
    """Bytes of device memory that this process may use in all.

    Args:
        machine: as the process found it.
        memory_limit: as `--memory-limit`.
        in_use: bytes that it uses already.
    """
    if machine.kind == "cpu":
        free = in_use + max(0, host_memory()[1] - HOST_RESERVE_BYTES)
    elif machine.device_free_bytes:
        free = int(GPU_SHARE * machine.device_free_bytes)
    else:
        free = UNKNOWN_BYTES
    return free if memory_limit is None else min(memory_limit, free)


def make_room(program: Program, memory: DeviceMemory, gauge: Gauge, batch_size: int) -> None:
    """Free what nothing needs now, where that is much: models of past trials, then programs of other batch sizes.

    Keras' models refer to themselves, so those of past trials wait for the collector. Compiled programs hold constants,
    those of batch normalization one as large as its input.
    """

    def much() -> bool:
        return gauge.in_use() - memory.resident_bytes > LITTER_SHARE * memory.capacity_bytes

    if much():
        gc.collect()
    if much():
        program.engine.keep_only(program.batch_of(batch_size))


def predict_memory(program: Program, batch_sizes: Sequence[int]) -> PredictedMemory:
    """What the compiler's buffer assignment says of an epoch's program; nothing is run."""
    found: dict[int, int] = {}
    for batch_size in batch_sizes:
        try:
            step_bytes = program.engine.predict_memory(program.batch_of(batch_size))
        except (*REFUSALS, RuntimeError, ImportError) as error:
            # An experimental interface, asked on devices and in versions that nobody has tried.
            return PredictedMemory(found, refusal=reason(error))
        if step_bytes is not None:
            found[batch_size] = step_bytes
    return PredictedMemory(found)


def measure(
    program: Program, memory: DeviceMemory, gauge: Gauge, batch_sizes: Sequence[int], seconds: float
) -> Iterator[Measured | StepTimes]:
    """Train and evaluate at each batch size, then time their steps in turns.

    Weights change: load a state afterwards.

    Args:
        program: what is trained.
        memory: of the device, as the worker found it.
        gauge: of the same device.
        batch_sizes: ascending, so that the first failure is that of the least which does not fit.
        seconds: for the timings, all together; every size is timed at least once. 0 for none.
    """
    clocks = []
    for batch_size in batch_sizes:
        if len(batch_sizes) == 1:
            make_room(program, memory, gauge, batch_size)
        # Programs of other sizes may hold constants, which are not this one's.
        before = gauge.in_use()
        compile_seconds = program.prepare(batch_size)
        gauge.reset()
        clock = _Clock(program, batch_size)
        clock.seconds_for(1)
        step_bytes = gauge.peak() - before
        before = gauge.in_use()
        gauge.reset()
        program.engine.evaluate()
        memory = dataclasses.replace(memory, evaluation_bytes=max(memory.evaluation_bytes, gauge.peak() - before))
        clocks.append(clock)
        yield Measured(batch_size, compile_seconds, max(0, step_bytes), memory)
    yield StepTimes(tuple(_time(clocks, seconds)) if seconds > 0 else ())


@dataclass
class _Clock:
    """The timings of one batch size.

    Attributes:
        steps: how many steps make a round.
        short, long: seconds of one step, and of `steps` of them, each with what an epoch adds.
    """

    program: Program
    batch_size: int
    steps: int = 1
    short: list[float] = field(default_factory=list)
    long: list[float] = field(default_factory=list)
    rng: Any = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def whole(self) -> int:
        return self.program.train_examples // self.batch_size

    def seconds_for(self, steps: int) -> float:
        return self.program.train_steps(self.rng, self.batch_size, steps)

    def find_steps(self) -> None:
        """Make a round long enough, or an epoch."""
        seconds = self.seconds_for(1)
        while seconds < ROUND_SECONDS and self.steps < self.whole:
            self.steps = min(self.whole, max(2 * self.steps, math.ceil(self.steps * ROUND_SECONDS / (2 * seconds))))
            seconds = self.seconds_for(self.steps)

    def round(self) -> None:
        self.short.append(self.seconds_for(1))
        self.long.append(self.seconds_for(self.steps) if self.steps > 1 else self.short[-1])

    def row(self) -> StepTime:
        rest = self.program.train_examples % self.program.batch_of(self.batch_size) / self.batch_size
        short = statistics.median(self.short)
        if self.steps > 1:
            each = sorted((long - short) / (self.steps - 1) for long in self.long)
        else:
            each = sorted(seconds / (1 + rest) for seconds in self.short)
        step = max(statistics.median(each), 1e-9)
        low, high = each[len(each) // 4], each[(3 * len(each)) // 4]
        overhead = max(0.0, short - step * (1 + rest))
        return StepTime(self.batch_size, step, (high - low) / 2, overhead, len(each))


def _time(clocks: Sequence[_Clock], seconds: float) -> Iterator[StepTime]:
    deadline = time.perf_counter() + seconds
    for clock in clocks:
        clock.find_steps()
    for number in range(ROUNDS):
        for clock in clocks:
            if number == 0 or time.perf_counter() < deadline:
                clock.round()
    for clock in clocks:
        yield clock.row()
