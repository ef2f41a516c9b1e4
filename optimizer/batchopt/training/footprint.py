"""What a step may take, read off its graph before it is run.

TensorFlow's convolutions on a processor end the process where memory does not suffice, instead of raising: what could
be too large must not be tried where nobody expects a worker to die of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def at_most(step: Callable[[Any], Any], data: Any, examples: int) -> int:
    """Bytes of all that the operations of one step put out: more than is there at any one time.

    Args:
        step: `train_step` or `test_step` of a model that compiles.
        data: arrays, nested as the step takes them.
        examples: of the step.
    """
    parts = tuple(part for part in data if part is not None)
    batch = tf.nest.map_structure(lambda leaf: tf.TensorSpec((examples, *leaf.shape[1:]), leaf.dtype), parts)
    graph = tf.function(step, autograph=False).get_concrete_function(batch).graph
    put_out = (tensor for op in graph.get_operations() if op.type != "Placeholder" for tensor in op.outputs)
    return sum(tensor.dtype.size * (tensor.shape.num_elements() or 0) for tensor in put_out)


def examples_held(step: Callable[[Any], Any], data: Any, examples: int, room: float) -> int:
    """So many examples, or as few as `room` bytes hold what one step of them puts out; arguments as `at_most`."""
    most = at_most(step, data, examples)
    return examples if most <= room else max(1, int(examples * room / most))
