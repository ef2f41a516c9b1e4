"""How noisy gradients are, looked at while trials train: squared norms of gradients of small and of big batches.

A big batch is made of small ones, whose mean gradient is its own, so one compiled gradient serves both, and what a
measurement holds on the device is what a small step holds. The weights stay as they are, and so does everything else
that training changes. From the norms follows the gradient noise scale (`search/laws.py`).
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchopt.measured import Epoch
from batchopt.question.task import Dataset, example_count, take
from batchopt.training.form import form_of
from batchopt.training.messages import Train
from batchopt.training.program import Program
from batchopt.training.raised import reason
from batchopt.training.seeds import noise_rng

SMALL, BIG = 64, 1024
"""Batch sizes: far apart, so that signal and noise can be told apart, and no more examples than that needs."""

COST_SHARE = 0.015
"""Of training time: what measuring may cost, compilation included."""

FIRST_SECONDS = 0.2
"""What the first measurement is taken to cost before any was made: it compiles."""


class NoiseMeter:
    """Measures one program's gradients.

    Args:
        model: compiled, as in a `Program`.
        data: split.

    Attributes:
        refusal: why this model's gradients are not looked at, in a few words; empty where they are.
    """

    def __init__(self, model: Any, data: Dataset) -> None:
        self._model = model
        self._data = data
        self._step: Any = None
        self.refusal = _refusal(model, data)

    def measure(self, rng: np.random.Generator) -> dict[str, Any]:
        """Norms on the weights as they are, over one big batch drawn with replacement; named as in an `Epoch`."""
        started = time.perf_counter()
        model, parts = self._model, tuple(part for part in self._data.train if part is not None)
        trained = [variable.value for variable in model.trainable_variables]
        ids = {id(variable.value.handle) for variable in [*model.trainable_variables, *model.optimizer.variables]}
        # Moving averages and the seeds of dropout move with every look; they are put back.
        others = [(item, item.numpy()) for item in form_of(model).variables if id(item.handle) not in ids]
        if self._step is None:
            self._step = tf.function(self._gradient, autograph=False, reduce_retracing=True)
        index = rng.integers(example_count(self._data.train), size=BIG)
        total = [tf.zeros(value.shape, tf.float32) for value in trained]
        squares = []
        try:
            for start in range(0, BIG, SMALL):
                square, total = self._step(take(parts, index[start : start + SMALL]), total)
                squares.append(square)
        finally:
            for variable, value in others:
                variable.assign(value)
        return {
            "noise_small": SMALL,
            "noise_big": BIG,
            "sq_norm_small": float(tf.reduce_mean(tf.stack(squares))),
            "sq_norm_big": float(_square(total)) / (BIG // SMALL) ** 2,
            "noise_seconds": time.perf_counter() - started,
        }

    def _gradient(self, batch: Any, total: Any) -> Any:
        """The squared norm of a batch's gradient, and the sum of gradients with it."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        variables = [variable.value for variable in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = self._model.compute_loss(x=x, y=y, y_pred=self._model(x, training=True), sample_weight=weight)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]
        return _square(gradients), [known + new for known, new in zip(total, gradients, strict=True)]


class NoiseWatch:
    """Looks at gradients after some epochs of some trials: as often as a share of the training time allows.

    Args:
        say: told once why they are not looked at, where they are not.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = False
        self._meters: weakref.WeakKeyDictionary[Any, NoiseMeter] = weakref.WeakKeyDictionary()
        self._trained = 0.0
        self._spent = 0.0
        self._last = FIRST_SECONDS

    def look(self, program: Program, request: Train, figures: Epoch) -> Epoch:
        """An epoch that was just trained, with what its weights' gradients are like where that is due.

        Trials of smaller batches than `SMALL` are left alone: what that takes may not fit where they do.
        """
        self._trained += figures.train_seconds
        due = self._spent + self._last <= COST_SHARE * self._trained
        if figures.valueless or request.batch_size < SMALL or not due:
            return figures
        new = program not in self._meters
        meter = self._meters.setdefault(program, NoiseMeter(program.model, program.data))
        norms: dict[str, Any] = {}
        if not meter.refusal:
            try:
                norms = meter.measure(noise_rng(request.study_seed, request.trial, figures.epoch))
            except (tf.errors.OpError, NotImplementedError, TypeError, ValueError) as error:
                meter.refusal = reason(error)
        if meter.refusal:
            if not self._said:
                self._say(f"the gradient noise scale is not measured: {meter.refusal}")
            self._said = True
            return figures
        seconds = norms["noise_seconds"]
        self._spent += seconds
        # One that compiles says nothing of the next one.
        self._last = min(self._last, seconds) if new else seconds
        return dataclasses.replace(figures, **norms)


def _square(gradients: Any) -> Any:
    return tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients])


def _refusal(model: Any, data: Dataset) -> str:
    if type(model).train_step is not keras.Model.train_step:
        return "the model has a train_step of its own"
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        return "the loss is scaled"
    if model.run_eagerly:
        return "the model runs eagerly"
    return "the data is no array" if callable(data.train) else "the data is a stream" if data.streamed else ""
