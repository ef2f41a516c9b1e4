"""Engines: three ways to run an epoch of the same Keras model.

A small model's epoch is all overhead under `fit`: one to two milliseconds a step around 50 microseconds of arithmetic.
The fused engines make the whole epoch one compiled program: data on the device, batches gathered by the epoch's
permutation, `model.train_step` inside a loop, one small tensor back. `fit` is Keras' own loop, for data that does not
fit on the device and for models that do not compile.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchopt.errors import InvalidInput
from batchopt.measured import EngineName
from batchopt.question.task import example_count
from batchopt.training.accumulation import accumulating
from batchopt.training.figures import Figures, flat
from batchopt.training.footprint import examples_held
from batchopt.training.form import form_of
from batchopt.training.made import EVALUATION_BATCH_SIZE as MADE_EVALUATION_BATCH_SIZE
from batchopt.training.made import made, order_of
from batchopt.training.one_pass import Pass, temporary_bytes
from batchopt.training.out_of_memory import is_out_of_memory
from batchopt.training.resident import HostBatches, Resident, from_host

EVALUATION_BATCH_SIZE = 1000
"""Examples per evaluation step: its own, so that a trial's batch size never decides whether evaluation fits.
Fewer where memory is short, so that evaluation never decides which batch sizes fit."""

STEPS_PER_EXECUTION = 64
"""For `fit`: enough to amortise a call. An epoch of fewer steps ends where its data does, in the same function."""

SHUFFLE_BUFFER = 16_384
"""Examples held while a streamed data set is shuffled."""


class Engine(ABC):
    """Runs epochs of one model on one data set; compiled programs are kept by batch size.

    Attributes:
        micro_batch_size: of a larger batch, so many examples at once, their gradients averaged; None for whole batches.
    """

    name: EngineName

    def __init__(self, model: Any, resident: Resident) -> None:
        self._model = model
        self._resident = resident
        self._chunk: int | None = None
        self.micro_batch_size: int | None = None

    @property
    def chunk(self) -> int:
        """Examples per evaluation step."""
        if self._chunk is None:
            data, most = self._resident.data.validation, EVALUATION_BATCH_SIZE
            if isinstance(data, tuple):
                most = min(most, example_count(data))
                if not self._model.run_eagerly:
                    most = examples_held(self._model.test_step, data, most, self._resident.room)
            self._chunk = most
        return self._chunk

    @abstractmethod
    def prepare(self, batch_size: int) -> float:
        """Make all that an epoch of this batch size needs beside its steps, and return the seconds it took.

        Once for each trial, after its model was built, also where everything is compiled: setting the seed
        (`keras.utils.set_random_seed`, `tf.random.set_seed`) has TensorFlow drop the kernels of all functions
        (`TFE_ContextClearCaches`), since random ones hold seeds. A function that runs next without XLA has its graph
        optimized and its executor made again, which takes a tenth of a second: 20 epochs of a small model.

        Training variables may change: load the trial's state afterwards.
        """

    def prepare_evaluation(self) -> None:  # noqa: B027  nothing, where evaluation needs no program of its own
        """Compile what evaluation needs, once for all batch sizes."""

    @abstractmethod
    def train(
        self, rng: np.random.Generator, batch_size: int, steps: int | None = None, callbacks: Sequence[Any] = ()
    ) -> Figures:
        """One pass over the training data in the order that `rng` gives, every example once.

        Args:
            rng: the epoch's own generator.
            batch_size: examples per optimizer step; the last one takes what is left.
            steps: at most so many whole batches, for timing; all of them where None.
            callbacks: called around batches; `fit` alone can.

        Returns:
            The metrics over the pass. The device has finished when this returns.
        """

    def evaluate(self, callbacks: Sequence[Any] = ()) -> Figures:
        """The metrics over the validation data, in as large chunks as memory holds; `callbacks` as in `train`."""
        while True:
            try:
                return self.evaluate_in_chunks(callbacks)
            except tf.errors.OpError as error:
                if self.chunk == 1 or not is_out_of_memory(error):
                    raise
            # Not by halves: an allocator waits for ten seconds before it gives up.
            self._chunk = max(1, self.chunk // 8)

    @abstractmethod
    def evaluate_in_chunks(self, callbacks: Sequence[Any] = ()) -> Figures:
        """The metrics over the validation data, `chunk` examples at a time.

        Raises:
            OpError: also where memory does not suffice.
        """

    def _step(self, batch_size: int) -> Any:
        """Of the model, on a batch of this size."""
        micro = self.micro_batch_size
        return self._model.train_step if micro is None or batch_size <= micro else accumulating(self._model, micro)

    def keep_only(self, batch_size: int) -> None:  # noqa: B027  nothing, where no programs are kept
        """Forget the programs of other batch sizes; they are compiled anew when they are prepared again."""

    def predict_memory(self, batch_size: int) -> int | None:
        """Bytes of device memory that an epoch's program needs beside its arguments, without running it.

        None where the compiler does not tell.
        """
        return None


class FusedEngine(Engine):
    """One compiled program per epoch, data resident on the device."""

    def __init__(self, model: Any, resident: Resident, *, xla: bool) -> None:
        super().__init__(model, resident)
        self.name = "fused-xla" if xla else "fused"
        self._xla = xla
        self._train_count = resident.train_count
        self._validation_count = example_count(resident.data.validation)
        self._epochs: dict[tuple[int, int | None], Pass] = {}
        self._evaluation: tuple[int, Pass] | None = None

    def prepare(self, batch_size: int) -> float:
        started = time.perf_counter()
        made = len(self._epochs)
        epoch = self._epoch_program(batch_size)
        self.prepare_evaluation()
        # No whole batch: enough to trace and compile, and next to no work. Of what XLA has just made, one: the first to
        # run takes two milliseconds more, which is as long as two epochs of a small model.
        whole = min(1, self._train_count // batch_size) if self._xla and len(self._epochs) > made else 0
        epoch(tf.range(self._train_count, dtype=tf.int32), whole)
        return time.perf_counter() - started

    def prepare_evaluation(self) -> None:
        if self._evaluation is None:
            self.evaluate()
        else:
            self._evaluation[1](tf.range(self._validation_count, dtype=tf.int32), 0)

    def train(
        self, rng: np.random.Generator, batch_size: int, steps: int | None = None, callbacks: Sequence[Any] = ()
    ) -> Figures:
        order = tf.constant(rng.permutation(self._train_count).astype(np.int32))
        whole = self._train_count // batch_size
        return self._epoch_program(batch_size)(order, whole if steps is None else min(steps, whole))

    def evaluate_in_chunks(self, callbacks: Sequence[Any] = ()) -> Figures:
        if self._evaluation is None or self._evaluation[0] != self.chunk:
            data = self._resident.validation
            logs = form_of(self._model).logs[1]
            step = self._model.test_step
            self._evaluation = self.chunk, Pass(self._model, step, logs, data, self.chunk, xla=self._xla)
        order = tf.range(self._validation_count, dtype=tf.int32)
        return self._evaluation[1](order, self._validation_count // self.chunk)

    def keep_only(self, batch_size: int) -> None:
        self._epochs = {key: program for key, program in self._epochs.items() if key[0] == batch_size}
        gc.collect()

    def predict_memory(self, batch_size: int) -> int | None:
        if not self._xla:
            return None
        order = tf.range(self._train_count, dtype=tf.int32)
        compiled = self._epoch_program(batch_size).program.experimental_get_compiler_ir(order, tf.constant(0))
        # The arguments, variables and data, are resident; what is live on return is a few numbers.
        return temporary_bytes(compiled(stage="optimized_hlo_proto_serialized"))

    def _epoch_program(self, batch_size: int) -> Pass:
        """The epoch's program, traced and compiled when it is first run."""
        key = batch_size, self.micro_batch_size
        if key not in self._epochs:
            logs, data = form_of(self._model).logs[0], self._resident.train
            step = self._step(batch_size)
            self._epochs[key] = Pass(self._model, step, logs, data, batch_size, xla=self._xla)
        return self._epochs[key]


class FitEngine(Engine):
    """Keras' `fit`, several steps per execution; arrays or a streamed `tf.data.Dataset`.

    Args:
        each_batch: whether callbacks are called around batches: as many steps per execution as the model has then.
    """

    name = "fit"

    def __init__(self, model: Any, resident: Resident, *, each_batch: bool = False) -> None:
        super().__init__(model, resident)
        self._data = resident.data
        self._held = resident.held
        self._count = resident.train_count
        self._evaluated = False
        self._stepping: int | None = None
        if not each_batch and model.steps_per_execution != STEPS_PER_EXECUTION:
            model.steps_per_execution = STEPS_PER_EXECUTION
            model.train_function = None

    @functools.cached_property
    def _train(self) -> HostBatches:
        return HostBatches(self._data.train)

    @functools.cached_property
    def _validation(self) -> HostBatches:
        return HostBatches(self._data.validation)

    def prepare(self, batch_size: int) -> float:
        self._step_by(batch_size)
        if self._model.run_eagerly:
            # Nothing is compiled, and a step would make what the trial's first one is to make.
            return 0.0
        started = time.perf_counter()
        self.train(np.random.default_rng(0), batch_size, steps=1)
        if not self._evaluated:
            self.evaluate()
            self._evaluated = True
        return time.perf_counter() - started

    def train(
        self, rng: np.random.Generator, batch_size: int, steps: int | None = None, callbacks: Sequence[Any] = ()
    ) -> Figures:
        # The last partial batch with any number of steps, as a timing of them takes it for granted.
        used = None if steps is None else steps * batch_size + self._count % batch_size
        if callable(self._data.train):
            return self._train_on_made(rng, batch_size, steps, callbacks)
        if self._data.streamed:
            stream = self._data.train if used is None else self._data.train.take(used)
            shuffled = stream.shuffle(min(self._count, SHUFFLE_BUFFER), seed=int(rng.integers(2**31)))
            batches = shuffled.batch(batch_size).prefetch(tf.data.AUTOTUNE)
        elif self._held:
            batches = self._train.of(batch_size, rng.permutation(self._count), used)
        else:
            batches = from_host(self._data.train, rng.permutation(self._count)[:used], batch_size)
        return self._fit(batches, shuffle=False, callbacks=list(callbacks))

    def _train_on_made(
        self, rng: np.random.Generator, batch_size: int, steps: int | None, callbacks: Sequence[Any]
    ) -> Figures:
        """As `train`; their order is that of who makes them, but for a `PyDataset`, whose batches Keras shuffles."""
        seed = int(rng.integers(2**31))
        batches = made(self._data.train, batch_size, seed)
        shuffled = isinstance(batches, keras.utils.PyDataset)
        if steps is not None:
            steps += self._count % batch_size > 0
        elif isinstance(batches, Iterator):
            # It may go on for ever.
            steps = -(-self._count // batch_size)
        with order_of(seed):
            return self._fit(batches, shuffle=shuffled, steps_per_epoch=steps, callbacks=list(callbacks))

    def _step_by(self, batch_size: int) -> None:
        """Have the model take whole batches of this size, or micro-batches of them."""
        micro = None if batch_size <= (self.micro_batch_size or batch_size) else self.micro_batch_size
        if micro != self._stepping:
            self._stepping = micro
            # Of its class, unless there is one on the model itself.
            vars(self._model).pop("train_step", None)
            if micro is not None:
                self._model.train_step = self._step(batch_size)
            self._model.train_function = None

    def _fit(self, batches: Any, **how: Any) -> Figures:
        with _unfinished(self._model.optimizer):
            history = self._model.fit(batches, verbose=0, **how)
        return flat({name: values[-1] for name, values in history.history.items()})

    def evaluate_in_chunks(self, callbacks: Sequence[Any] = ()) -> Figures:
        data = self._data.validation
        if callable(data):
            batches = made(data, min(self.chunk, MADE_EVALUATION_BATCH_SIZE))
        elif not isinstance(data, tuple):
            batches = data.batch(self.chunk)
        elif self._held:
            batches = self._validation.of(self.chunk)
        else:
            batches = from_host(data, np.arange(example_count(data)), self.chunk)
        figures = self._model.evaluate(batches, verbose=0, return_dict=True, callbacks=list(callbacks))
        return flat(figures)


@contextlib.contextmanager
def _unfinished(optimizer: Any) -> Iterator[None]:
    """Keep `fit` from writing averages of the weights over the weights at its end, where the optimizer keeps them.

    Keras does so once, after the last epoch; it is called here for each, none of which is known to be the last.
    """
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def make_engine(name: EngineName, model: Any, resident: Resident, *, each_batch: bool = False) -> Engine:
    """The engine of that name; `each_batch` as of `FitEngine`.

    Raises:
        InvalidInput: a fused engine for streamed data, or for a model compiled to run eagerly.
    """
    if name == "fit":
        # With several steps in one execution Keras would go beyond what is asked of a generator.
        return FitEngine(model, resident, each_batch=each_batch or callable(resident.data.train))
    if resident.data.streamed:
        what = "what a function makes" if callable(resident.data.train) else "a tf.data training set"
        raise InvalidInput(f"engine {name!r} holds the data on the device; {what} needs --engine fit.")
    if not resident.held:
        raise InvalidInput(f"engine {name!r} holds the data on the device, which does not fit; use --engine fit.")
    if model.run_eagerly:
        raise InvalidInput(f"engine {name!r} compiles the epoch; a model with run_eagerly=True needs --engine fit.")
    return FusedEngine(model, resident, xla=name == "fused-xla")
