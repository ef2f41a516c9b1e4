"""What a study knows of its machine while it runs: which batch sizes fit, and what an epoch of each costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchopt.machine.energy import Power
from batchopt.machine.memory import MemoryLaw, largest_fitting, needed
from batchopt.machine.step_time import StepTimeLaw
from batchopt.measured import DeviceMemory, MemoryRow, StepTime

SMALL_BYTES = 1 << 20
"""TensorFlow's allocator hands out a free piece whole unless it is twice what was asked for."""

NEARLY_ALL = 0.9
"""Of the device's memory: signal 9 above this is taken for the kernel's, for want of memory."""


class Capacity:
    """Memory and step times of one program on one machine.

    Args:
        sizes: batch sizes that stand for the space, ascending.
        memory: of the device; None where no worker said.
        rows: what is known of memory already.
        machine: its fingerprint.
        recorded: whether all that a database knows is known here too.
        accumulate: whether a batch that memory does not hold is trained in micro-batches of the largest size that fits.
        max_power_w: the most that the device may draw, in watts; None where it does not say.

    Attributes:
        power: what it draws, as the epochs tell that were trained here.
        steps: the law of step times; None before any were measured.
        step_rows: what it was fitted to.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        memory: DeviceMemory | None,
        rows: Sequence[MemoryRow] = (),
        *,
        machine: str = "",
        recorded: bool = False,
        accumulate: bool = False,
        max_power_w: float | None = None,
    ) -> None:
        self.machine = machine
        self.power = Power(max_power_w)
        self.recorded = recorded
        self.accumulate = accumulate
        self.sizes = list(sizes)
        self.memory = memory
        self.steps: StepTimeLaw | None = None
        self.step_rows: list[StepTime] = []
        self._rows = {row.batch_size: row for row in rows}
        self._tried = 0
        self._elsewhere: dict[str, DeviceMemory] = {}
        self._ceiling: int | None = None

    @property
    def rows(self) -> list[MemoryRow]:
        """What is known of memory, by batch size."""
        return [self._rows[size] for size in sorted(self._rows)]

    @property
    def verified(self) -> int:
        """The largest batch size that was really trained and evaluated; 0 for none."""
        return max((row.batch_size for row in self._rows.values() if row.fits), default=0)

    @property
    def failed(self) -> int | None:
        """The least batch size that ran out of memory; None for none."""
        return min((row.batch_size for row in self._rows.values() if row.fits is False), default=None)

    @property
    def max_batch_size(self) -> int | None:
        """The largest batch size to propose, in examples; None where nothing says that any is too large."""
        held = self.held
        return None if self.accumulate and held is not None and held >= self.sizes[0] else held

    def at_once(self, batch_size: int) -> int:
        """Examples of a batch that are on the device at once: all of them, unless gradients are accumulated."""
        held = self.held
        if not self.accumulate or held is None or batch_size <= held:
            return batch_size
        return max((size for size in self.sizes if size <= held), default=batch_size)

    def micro_batch_size(self, batch_size: int) -> int | None:
        """The size of the micro-batches that a batch is trained in; None where it is trained whole."""
        at_once = self.at_once(batch_size)
        return None if at_once == batch_size else at_once

    @property
    def held(self) -> int | None:
        """The largest batch whose examples fit all at once; None where nothing says that any does not.

        What was verified fits, and of what was not, only what lies below it. What another session has verified must
        also be foretold to fit in the memory that there is now, and in that of other machines that have joined.
        """
        known = self._known_to_fit()
        below = [size for size in self.sizes if known is None or size <= known]
        held = largest_fitting(below, self._fits_now)
        if not below or held == below[-1]:
            return known
        return below[0] - 1 if held is None else held

    def _known_to_fit(self) -> int | None:
        if self._ceiling is not None:
            return self._ceiling
        if self.verified:
            return None if self.failed is None and self.verified >= self.sizes[-1] else self.verified
        return None if self.failed is None else self.failed - 1

    def _fits_now(self, batch_size: int) -> bool:
        step_bytes = self.step_bytes(batch_size)
        if step_bytes is None:
            return True
        if any(needed(memory, step_bytes) > memory.capacity_bytes for memory in self._elsewhere.values()):
            return False
        # Without the reserve: it was verified once, and is not lost to a want of what it did not need then.
        memory = None if batch_size <= self._tried else self.memory
        return memory is None or memory.resident_bytes + step_bytes <= memory.capacity_bytes

    def record_machine(self, machine: str, memory: DeviceMemory) -> None:
        """A worker is ready on this machine, or on another one, which has to hold what is proposed too."""
        if machine != self.machine:
            self._elsewhere[machine] = memory

    def record_prediction(self, batch_size: int, step_bytes: int) -> None:
        """The compiler says so."""
        known = self._rows.get(batch_size)
        if known is None or known.fits is None:
            self._rows[batch_size] = MemoryRow(batch_size, step_bytes, None)

    def record_measurement(self, batch_size: int, step_bytes: int | None, memory: DeviceMemory) -> None:
        """It was trained and evaluated; what the compiler said of it stays, where that is what the allocator took."""
        known = self._rows.get(batch_size)
        told = None if known is None else known.step_bytes
        if told is not None and (step_bytes is None or told <= step_bytes < 2 * told + SMALL_BYTES):
            step_bytes = told
        self._rows[batch_size] = MemoryRow(batch_size, step_bytes, True)
        self._tried = max(self._tried, batch_size)
        self.memory = memory

    def record_out_of_memory(self, batch_size: int, machine: str) -> bool:
        """A trial ran out of memory: neither its batch size nor any larger one is proposed again in this session.

        Returns:
            Whether that is knowledge about the machine, to be kept: not where the batch size was verified before, so
            that memory may be short for a while only, and not where it was another machine.
        """
        if machine == self.machine and batch_size > self.verified:
            self.record_failure(batch_size)
            return True
        self._ceiling = batch_size - 1 if self._ceiling is None else min(self._ceiling, batch_size - 1)
        return False

    def record_failure(self, batch_size: int) -> None:
        """It does not fit: neither it nor any larger one does, whatever was thought before."""
        if batch_size <= self.verified:
            self._ceiling = batch_size - 1
        self._tried = min(self._tried, batch_size - 1)
        for size in [size for size in self._rows if size >= batch_size]:
            self._rows[size] = MemoryRow(size, self._rows[size].step_bytes, False)
        self._rows.setdefault(batch_size, MemoryRow(batch_size, None, False))

    def step_bytes(self, batch_size: int) -> int | None:
        """What a training step needs beside what is resident: seen, or by the law; None where nothing was seen.

        A larger batch needs no less than a smaller one: where it was seen to, one of the two was seen wrongly.
        """
        seen = {row.batch_size: row.step_bytes for row in self._rows.values() if row.step_bytes is not None}
        if not seen:
            return None
        here = seen[batch_size] if batch_size in seen else MemoryLaw.fitted(seen)(batch_size)
        return max(here, *(step_bytes for size, step_bytes in seen.items() if size <= batch_size), 0)

    def needed(self, batch_size: int) -> int | None:
        """Bytes of device memory in all, the reserve included; None where nothing was seen."""
        step_bytes = self.step_bytes(batch_size)
        return None if step_bytes is None or self.memory is None else needed(self.memory, step_bytes)

    def fits(self, batch_size: int) -> bool:
        """Whether a batch size fits, by what failed, and by what is needed; what nothing is known of may be tried."""
        if self.failed is not None and batch_size >= self.failed:
            return False
        need = self.needed(batch_size)
        return need is None or self.memory is None or need <= self.memory.capacity_bytes

    def nearly_all(self, batch_size: int) -> bool:
        """Whether a batch size comes so near the end of memory that a killed worker is likely to have met it."""
        need = self.needed(batch_size)
        return need is not None and self.memory is not None and need > NEARLY_ALL * self.memory.capacity_bytes

    def bytes_over(self, batch_size: int) -> float:
        """By how much a batch size that failed is too large: foreseen; 1 where it should have fitted."""
        need = self.needed(batch_size)
        return 1.0 if need is None or self.memory is None else max(1.0, float(need - self.memory.capacity_bytes))

    def record_step_times(self, rows: Sequence[StepTime], train_examples: int) -> None:
        """Steps were timed."""
        self.step_rows = list(rows)
        self.steps = StepTimeLaw(rows, train_examples, self.at_once) if rows else None

    def seconds_per_epoch(self, *, refined: bool = True) -> Callable[[int], float] | None:
        """Batch size -> seconds per epoch, `refined` as epochs are told or not; None where no step was timed."""
        return self.steps if refined or self.steps is None else self.steps.probed_epoch_s

    def record_epoch(self, batch_size: int, seconds: float, *, side_by_side: bool, joules: float | None = None) -> None:
        """An epoch was trained; one that shared the processor with another says nothing of the machine."""
        if side_by_side:
            return
        self.power.tell(batch_size, joules, seconds)
        if self.steps is not None:
            self.steps.tell(batch_size, seconds)
