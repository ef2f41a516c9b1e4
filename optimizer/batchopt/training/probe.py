"""The probe: short timings on the device that decide how a study trains."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from batchopt.measured import EngineName, EngineTiming
from batchopt.question.task import Task
from batchopt.training.callbacks import TrialCallbacks, check_made_anew, made
from batchopt.training.data_check import SEARCHED, check_with
from batchopt.training.footprint import examples_held
from batchopt.training.form import unchanged
from batchopt.training.out_of_memory import is_out_of_memory
from batchopt.training.program import Program, build, given_by_name, state_of
from batchopt.training.raised import reason
from batchopt.training.resident import Resident

PROBE_BATCH_SIZE = 128
"""Common, and small enough that an engine's overhead per step shows; less where memory is short."""

TIMED_SECONDS = 0.2
"""Long against the clock and one slow step, short against a trial."""

REFUSALS = (tf.errors.OpError, NotImplementedError, TypeError, ValueError)
"""What a model raises that an engine cannot compile."""


def choose_engine(
    task: Task,
    resident: Resident,
    *,
    learning_rate: float,
    extra: Mapping[str, Any],
    pinned: EngineName | None = None,
    batch_sizes: int = 10,
    epochs: int = 100,
    trial_epochs: int = 1,
) -> tuple[Program, list[EngineTiming]]:
    """Time the engines that can run this model on this device, and keep the one that a study is done with first.

    `fit` is not timed where a fused engine works: it runs the same operations and its own overhead on top of them.

    Args:
        task: what is trained.
        resident: the data, as the trials will use it.
        learning_rate: any rate of the space; steps cost the same at all of them.
        extra: any values of the extra dimensions.
        pinned: use this engine and time nothing; where callbacks are called around batches it is `fit`.
        batch_sizes, epochs: of a study: each batch size is compiled once, each epoch trained.
        trial_epochs: of a whole trial, for a `build_model` that asks.

    Returns:
        The chosen engine's program, and the timings, the chosen one first.

    Raises:
        InvalidInput: the pinned engine cannot run this model or this data.
        DataError: the data makes no sense to this model.
    """
    # One on all machines, as the study's stamp holds what this model is.
    batch_size = min(PROBE_BATCH_SIZE, resident.train_count)
    model = build(
        task,
        resident.data,
        learning_rate=learning_rate,
        extra=extra,
        seed=0,
        batch_size=batch_size,
        epochs=trial_epochs,
    )
    with unchanged(model):
        check_with(model, resident.data, resident.given(), SEARCHED)
    given = given_by_name(resident.data, seed=0, batch_size=batch_size, epochs=trial_epochs)
    callbacks, again = (made(task, learning_rate, extra, given) for _ in range(2))
    if callbacks is not None and again is not None:
        check_made_anew(callbacks, again)
        if callbacks.around_batches:
            return Program(task, resident, "fit", model, each_batch=True, callbacks=callbacks), []
    if pinned is not None:
        return Program(task, resident, pinned, model, callbacks=callbacks), []
    candidates: tuple[EngineName, ...] = ("fused-xla", "fused") if resident.held and not model.run_eagerly else ()
    if candidates:
        batch_size = examples_held(model.train_step, resident.data.train, batch_size, resident.room)
    while True:
        try:
            timed, refused = _timed(task, resident, model, candidates, batch_size, callbacks)
            break
        except REFUSALS as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
            batch_size //= 2
    if not timed:
        return Program(task, resident, "fit", model, callbacks=callbacks), refused
    steps = epochs * resident.train_count / batch_size
    timed.sort(key=lambda pair: pair[0].step_time_s * steps + pair[0].compile_seconds * batch_sizes)
    return timed[0][1], [timing for timing, _ in timed] + refused


def _timed(
    task: Task,
    resident: Resident,
    model: Any,
    engines: Sequence[EngineName],
    batch_size: int,
    callbacks: TrialCallbacks | None,
) -> tuple[list[tuple[EngineTiming, Program]], list[EngineTiming]]:
    """The engines that run this model, timed, and those that refuse it.

    Raises:
        OpError: this batch size does not fit in memory, with one engine or the other.
    """
    timed: list[tuple[EngineTiming, Program]] = []
    refused: list[EngineTiming] = []
    start = state_of(model)
    for engine in engines:
        program = Program(task, resident, engine, model, callbacks=callbacks)
        try:
            timed.append((_time(program, batch_size), program))
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            refused.append(EngineTiming(engine, float("inf"), 0.0, refusal=reason(error)))
        finally:
            program.load(start)
    return timed, refused


def _time(program: Program, batch_size: int) -> EngineTiming:
    """Compile, warm up, then time rounds of steps, more each until a round is long enough; the median of three."""
    whole_batches = program.train_examples // batch_size
    # Once for all batch sizes, and the compiler's own first use with it: not what a batch size costs.
    program.engine.prepare_evaluation()
    compile_seconds = program.engine.prepare(batch_size)
    rng = np.random.default_rng(0)

    def seconds_for(steps: int) -> float:
        started = time.perf_counter()
        program.engine.train(rng, batch_size, steps=steps)
        return time.perf_counter() - started

    steps = 1
    seconds_for(steps)
    while (seconds := seconds_for(steps)) < TIMED_SECONDS and steps < whole_batches:
        steps = min(whole_batches, max(2 * steps, math.ceil(steps * TIMED_SECONDS / seconds)))
    median = statistics.median([seconds, seconds_for(steps), seconds_for(steps)])
    return EngineTiming(program.engine.name, median / steps, compile_seconds)
