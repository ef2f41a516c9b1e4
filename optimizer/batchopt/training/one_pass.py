"""One pass over data on the device as one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from batchopt.question.task import example_count
from batchopt.training.figures import Figures, flat
from batchopt.training.form import Names


class Pass:
    """One pass over data as one program; the last partial batch is a part of it.

    Args:
        model: whose step it is.
        one_step: of a batch.
        logs: what the step returns, where that is not the model's metrics: those of the last batch count then, as in
            `fit`.
        data: on the device.
        batch_size: examples per step.
        xla: whether XLA compiles it.

    Attributes:
        program: `(order, whole_batches) -> figures`.
    """

    def __init__(
        self, model: Any, one_step: Callable[[Any], Any], logs: Names | None, data: Any, batch_size: int, *, xla: bool
    ) -> None:
        rest = example_count(data) % batch_size
        self._names: Names = ()
        names = logs or ()

        # As `fit` does, which leaves the user's code as it is.
        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def step_on(index: Any) -> Any:
            told = one_step(tf.nest.map_structure(lambda array: tf.gather(array, index), data))
            if not names:
                return tf.zeros([0])
            figures = flat(told)
            return tf.stack([tf.cast(figures[name], tf.float32) for name in names])

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def metrics(told: Any) -> Any:
            if names:
                self._names = names
                return told
            figures = flat(model.get_metrics_result())
            self._names = tuple(figures)
            return tf.stack([tf.cast(value, tf.float32) for value in figures.values()])

        def run(order: Any, whole_batches: Any) -> Any:
            tf.autograph.experimental.do_not_convert(model.reset_metrics)()
            # Not `for step in tf.range(...)`: XLA compiles that anew for every number of steps.
            step, told = 0, tf.zeros([len(names)])
            while step < whole_batches:
                told = step_on(tf.slice(order, [step * batch_size], [batch_size]))
                step += 1
            if rest:
                # From where the loop has come to, not from a constant, or XLA would hold this batch during the loop.
                told = step_on(tf.slice(order, [step * batch_size], [rest]))
            return metrics(told)

        self.program = tf.function(run, jit_compile=xla)

    def __call__(self, order: Any, whole_batches: int) -> Figures:
        """The figures of a pass in this order; the device has finished when this returns."""
        values = self.program(order, tf.constant(whole_batches)).numpy()
        return {name: float(value) for name, value in zip(self._names, values, strict=True)}


def temporary_bytes(serialized: bytes) -> int:
    """What a compiled program allocates beside its arguments, in bytes, by XLA's buffer assignment."""
    from tensorflow.compiler.xla.service import hlo_pb2

    buffers = hlo_pb2.HloProto.FromString(serialized).buffer_assignment.buffer_allocations
    return sum(
        buffer.size
        for buffer in buffers
        if not (buffer.is_entry_computation_parameter or buffer.is_constant or buffer.is_thread_local)
    )
