"""A batch that memory does not hold, trained as micro-batches: gradients averaged by examples, one optimizer step.

It is the step of the whole batch where a loss is a mean over examples and nothing looks at a batch as a whole. Layers
that do, such as batch normalization, see micro-batches; so does a mask that leaves some of them less to average than
others. Random layers draw anew for each.
Embeddings have the gradients of repeated tokens summed, where Keras 3.15 leaves them apart: an optimizer that squares
gradients, as Adam, squares each then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from batchopt.errors import InvalidInput, ModelError
from batchopt.training.form import unchanged

SAME = 1e-4
"""Losses that differ by less are the same, but for how they are rounded."""

MEANS = ("sum_over_batch_size", "mean", "auto")
"""Reductions of losses that are means over a batch."""


def why_not(model: Any) -> str:
    """Why a model's gradients cannot be averaged over micro-batches, in a few words; empty where they can."""
    if type(model).train_step is not keras.Model.train_step:
        return "it has a train_step of its own"
    losses = tf.nest.flatten(model.loss)
    other = next((loss.reduction for loss in losses if getattr(loss, "reduction", "mean") not in MEANS), None)
    return "" if other is None else f"its loss is no mean over a batch, but {other}"


def check_accumulates(model: Any) -> None:
    """Refuse a model whose gradients cannot be averaged over micro-batches.

    Raises:
        ModelError: why.
    """
    if why := why_not(model):
        raise ModelError(f"--accumulate: this model cannot be trained in micro-batches, as {why}. Leave it out.")


def adds_up(model: Any, batch: Any) -> bool:
    """Whether a model's loss is a sum over a batch, of whatever makes it: twice as much for the same examples twice."""

    def loss(data: Any) -> float:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        predicted = model(x, training=False)
        return float(model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight, training=False))

    with unchanged(model):
        try:
            once = loss(batch)
            twice = loss(tf.nest.map_structure(lambda item: tf.concat([item, item], 0), batch))
        except (TypeError, ValueError, NotImplementedError, tf.errors.OpError):
            # It takes batches of one size alone, or nothing that is called so: nobody knows.
            return False
    return abs(twice - once) > SAME * abs(once)


def looked_at(model: Any, batch: Any, *, accumulate: bool) -> list[str]:
    """What there is to say of how a model accumulates gradients, by its optimizer.

    Args:
        model: compiled.
        batch: an example or a few, as its steps take them.
        accumulate: whether ours is asked for.

    Raises:
        ModelError: ours cannot.
    """
    if accumulate:
        check_accumulates(model)
        if adds_up(model, batch):
            raise ModelError(
                "--accumulate: this model cannot be trained in micro-batches, as its loss is a sum over a batch, or "
                "has one in it (add_loss). Take means, or leave the option out."
            )
    batches = accumulated_batches(model.optimizer)
    if batches == 1:
        return []
    return [
        f"the optimizer accumulates {batches} batches (gradient_accumulation_steps): a batch size is of all examples "
        f"of a step, which is trained as {batches} batches of a part each"
    ]


def accumulated_batches(optimizer: Any) -> int:
    """How many batches an optimizer takes for one step, by its own `gradient_accumulation_steps`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return int(getattr(inner, "gradient_accumulation_steps", None) or 1)


def check_divides(optimizer: Any, batch_sizes: Sequence[int]) -> None:
    """Refuse a batch size that is no whole number of examples in each of the batches that an optimizer accumulates.

    Raises:
        InvalidInput: naming it.
    """
    batches = accumulated_batches(optimizer)
    for batch_size in batch_sizes:
        if batch_size % batches:
            raise InvalidInput(
                f"batch size {batch_size}: the optimizer takes {batches} batches for a step "
                f"(gradient_accumulation_steps), so batch sizes are multiples of {batches}. Write such --batch-sizes."
            )


def looks_at_batches(model: Any) -> bool:
    """Whether a model normalizes by batches, so that micro-batches are another thing to it than the whole one."""
    inside = getattr(model, "layers", [])
    return any(
        looks_at_batches(layer) or (isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
        for layer in inside
    )


def accumulating(model: Any, micro_batch_size: int) -> Callable[[Any], Any]:
    """A step of a model, in the place of its `train_step`, that holds no more than a micro-batch at a time.

    Args:
        model: compiled.
        micro_batch_size: examples at once; the last of a batch are what is left.

    Raises:
        ModelError: its gradients cannot be averaged.
    """
    check_accumulates(model)
    loss_metric = next(metric for metric in model.metrics if metric.name == "loss")

    def step(data: Any) -> Any:
        first = tf.nest.flatten(data)[0]
        examples = first.shape[0] if first.shape[0] is not None else tf.shape(first)[0]
        variables = model.trainable_variables

        def gradients(batch: Any) -> list[Any]:
            """The part of the batch's gradient that comes from these examples; None for what they do not reach."""
            x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
            count = tf.shape(tf.nest.flatten(batch)[0])[0]
            with tf.GradientTape() as tape:
                predicted = model(x, training=True)
                loss = model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weight)
                scaled = model.optimizer.scale_loss(loss)
            loss_metric.update_state(loss, sample_weight=count)
            model.compute_metrics(x, y, predicted, sample_weight=weight)
            found = tape.gradient(scaled, [variable.value for variable in variables])
            share = tf.cast(count, tf.float32) / tf.cast(examples, tf.float32)
            return [None if part is None else tf.convert_to_tensor(part) * tf.cast(share, part.dtype) for part in found]

        if isinstance(examples, int):
            size = min(micro_batch_size, examples)
            start, whole = size, examples // size * size
        else:
            size = tf.minimum(micro_batch_size, examples)
            start, whole = size, examples // size * size
        parts = gradients(_slice(data, 0, size))
        reached = [part is not None for part in parts]

        def add(known: Any, batch: Any) -> list[Any]:
            new = [part for part, there in zip(gradients(batch), reached, strict=True) if there]
            return [old + part for old, part in zip(known, new, strict=True)]

        def body(at: Any, *known: Any) -> Any:
            return (at + size, *add(known, _slice(data, at, size)))

        known = [part for part in parts if part is not None]
        _, *known = tf.while_loop(lambda at, *_: at < whole, body, (tf.constant(0) + start, *known))
        if isinstance(examples, int):
            known = add(known, _slice(data, whole, examples - whole)) if whole < examples else known
        else:
            rest = examples - whole
            known = tf.cond(rest > 0, lambda: add(known, _slice(data, whole, rest)), lambda: list(known))
        found = iter(known)
        grads = [next(found) if there else None for there in reached]
        model.optimizer.apply_gradients(zip(grads, variables, strict=True))
        return model.get_metrics_result()

    return step


def _slice(data: Any, start: Any, size: Any) -> Any:
    """The same nest with `size` examples from `start` on; of a known size where that is one."""

    def cut(array: Any) -> Any:
        rest = len(array.shape) - 1
        part = tf.slice(array, tf.stack([start, *[0] * rest]), tf.stack([size, *[-1] * rest]))
        return tf.ensure_shape(part, (size if isinstance(size, int) else None, *array.shape[1:]))

    return tf.nest.map_structure(cut, data)
