"""The worker: a process of its own that alone touches the device, and answers one request at a time.

It is started as `python -m batchopt.training.worker FD PARENT`, FD being its end of a socket pair; so it never forks
TensorFlow nor runs the user's script again. It ends when its parent does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from batchopt.machine.energy import energy_meter
from batchopt.machine.gpu import Meter, has_card, hold, why_no_gpu
from batchopt.machine.machine import Machine
from batchopt.machine.memory import shown_bytes
from batchopt.measured import DeviceMemory
from batchopt.question.options import gpu_indices
from batchopt.question.task import Dataset, ProgramStamp, asked_by
from batchopt.training.by_value import Opening, opened
from batchopt.training.checkpoint import Pace
from batchopt.training.class_weight import weighed
from batchopt.training.data_check import SEARCHED, check
from batchopt.training.device import use_device
from batchopt.training.fingerprints import data_fingerprint
from batchopt.training.importing import importing
from batchopt.training.joining import joined
from batchopt.training.label_check import lacking_classes
from batchopt.training.limits import limit_process
from batchopt.training.messages import (
    Answer,
    EpochDone,
    Failed,
    Measure,
    ModelSaved,
    OpenedTest,
    OpenTest,
    PredictMemory,
    Ready,
    Remark,
    Request,
    Save,
    Saved,
    SaveModel,
    Setup,
    Train,
)
from batchopt.training.raised import Untrainable, failure
from batchopt.training.seeds import ORDER_OF, Purpose

if TYPE_CHECKING:
    from batchopt.training.resident import Resident


OOM_SCORE = Path("/proc/self/oom_score_adj")


class Trainer:
    """Holds the data and the compiled programs; trains what it is asked to.

    Raises:
        BatchoptError: something the user can mend, when made.
    """

    def __init__(self, setup: Setup, machine: Machine | None = None) -> None:
        machine = machine or use_device(setup.device, setup.cores, memory_limit=setup.memory_limit)
        # TensorFlow is configured by now; these modules may import it.
        from batchopt.training import accumulation, measure, noise, probe, program, programs, resident
        from batchopt.training.callbacks import engine_of_callbacks
        from batchopt.training.metrics import direction_of

        if setup.deterministic:
            program.use_deterministic_ops()
        card = (gpu_indices(setup.device) or (0,))[0] if machine.kind == "gpu" else None
        self._meter = energy_meter(card)
        if machine.kind == "gpu" and not setup.share:
            self._held = contextlib.ExitStack()
            self._held.enter_context(hold(Meter(card).name))
        self._task = setup.task
        loaded = setup.task.load_data(setup.data_path)
        check(loaded, SEARCHED)
        split = loaded.split(setup.train_examples)
        data = weighed(split, setup.task.class_weight)
        lacking = lacking_classes(split)
        self._gauge = measure.Gauge(machine.kind)
        capacity = measure.capacity_bytes(machine, setup.memory_limit, self._gauge.in_use())
        self.remarks: list[str] = lacking
        if machine.kind == "cpu" and setup.device == "auto" and has_card():
            self.remarks.append(f"training on the processor: {why_no_gpu()}")
        if setup.memory_limit is not None and machine.kind == "cpu":
            limit_process(capacity)
        self._resident = self._held_if_it_fits(data, capacity, asked=setup.hold_data and setup.engine != "fit")
        started = time.perf_counter()
        first, timings = probe.choose_engine(
            setup.task,
            self._resident,
            learning_rate=setup.learning_rate,
            extra=setup.extra,
            pinned=setup.engine or (setup.known_engines.get(machine.fingerprint) if self._resident.held else "fit"),
            batch_sizes=setup.batch_sizes,
            epochs=setup.epochs,
            trial_epochs=setup.trial_epochs,
        )
        engine_seconds = time.perf_counter() - started
        self.remarks += engine_of_callbacks(first.callbacks, setup.engine)
        self.remarks += accumulation.looked_at(first.model, program.sample(data), accumulate=setup.accumulate)
        stamp = ProgramStamp(
            model=program.signature(first.model, first.callbacks),
            data=data_fingerprint(data),
            train_examples=self._resident.train_count,
            validation_examples=resident.validation_count(data),
            metric=setup.task.metric,
            direction=direction_of(first.model, setup.task),
            form=first.form.digest,
            made_with=program.made_with(machine.kind, deterministic=setup.deterministic),
        )
        if first.engine.name == "fit":
            # Callbacks may have chosen it after the data was put there.
            self._resident.leave_device()
        if setup.join_validation:
            data = weighed(joined(split), setup.task.class_weight)
            asked = setup.hold_data and first.engine.name != "fit"
            self._resident = self._held_if_it_fits(data, capacity, asked=asked)
            engine = first.engine.name if self._resident.held else "fit"
            first = program.Program(
                setup.task,
                self._resident,
                engine,
                first.model,
                each_batch=first.each_batch,
                callbacks=first.callbacks,
            )
        self._engine = first.engine.name
        self._position: tuple[int, int] | None = None
        self._purpose: Purpose = "search"
        self._pace = Pace()
        self._noise = noise.NoiseWatch(lambda text: self.remarks.append(text))
        # While a trial begins, its own fresh model lies beside the compiled one.
        model_bytes = sum(array.nbytes for array in program.state_of(first.model))
        self._memory = DeviceMemory(capacity, self._gauge.in_use(), beginning_bytes=model_bytes)
        self._programs = programs.Programs(
            setup.task,
            self._resident,
            first,
            lambda current, batch_size: measure.make_room(current, self._memory, self._gauge, batch_size),
            epochs=setup.trial_epochs,
        )
        self.ready = Ready(
            machine=machine,
            program=stamp,
            parameters=int(first.model.count_params()),
            engine=self._engine,
            timings=tuple(timings),
            memory=self._memory,
            data_held=self._resident.held,
            has_test=data.test is not None,
            engine_seconds=engine_seconds,
        )

    def _held_if_it_fits(self, data: Dataset, capacity: int, *, asked: bool) -> Resident:
        """The data on the device; on the host where it does not fit, or was not asked for there."""
        import tensorflow as tf

        from batchopt.training.resident import Resident

        resident = Resident(data, held=asked, capacity=capacity)
        if not resident.held:
            return resident
        try:
            if resident.bytes < capacity:
                # Made when first looked at.
                _ = resident.train, resident.validation
                return resident
        except tf.errors.ResourceExhaustedError:
            del resident
        streamed = Resident(data, held=False, capacity=capacity)
        self.remarks.append(
            f"the data, {shown_bytes(streamed.bytes)}, does not fit on the device beside training "
            f"({shown_bytes(capacity)} in all): it stays on the host, and epochs are slower"
        )
        return streamed

    def answer(self, request: Request) -> Iterator[Answer]:
        """Do as asked, and say what came of it."""
        if isinstance(request, Train):
            yield from self._train(request)
        elif isinstance(request, Save):
            yield self._save(request)
        elif isinstance(request, OpenTest):
            yield self._open_test(request)
        elif isinstance(request, SaveModel):
            yield self._save_model(request)
        elif isinstance(request, PredictMemory):
            from batchopt.training.measure import predict_memory

            foreseen = predict_memory(self._programs.current, request.batch_sizes)
            if foreseen.refusal:
                yield Remark(f"the compiler does not predict memory here ({foreseen.refusal}); it is measured")
            yield foreseen
        elif isinstance(request, Measure):
            yield from self._measure(request)
        else:
            raise TypeError(f"a worker is set up once; it cannot answer {type(request).__name__}")

    def _train(self, request: Train) -> Iterator[Answer]:
        from batchopt.training.saving import check_savable

        compile_seconds = 0.0
        if request.purpose != self._purpose or self._position != (request.trial, request.from_epoch):
            self._pace.restart()
            self._position, self._purpose = None, request.purpose
            try:
                compile_seconds, from_epoch = self._programs.begin(request, self.remarks.append)
            except Untrainable as refusal:
                yield Failed("untrainable", "TrialPruned", str(refusal))
                return
            request = dataclasses.replace(request, from_epoch=from_epoch)
            if request.purpose == "model":
                # Before it is trained, which may take days.
                check_savable(self._programs.current.model)
            yield from self.said()
        process = psutil.Process()
        for number in range(request.from_epoch + 1, request.until_epoch + 1):
            rng = ORDER_OF[request.purpose](request.study_seed, request.trial, number)
            self._gauge.reset()
            callbacks = self._programs.callbacks
            figures = self._programs.current.epoch(
                number, batch_size=request.batch_size, rng=rng, callbacks=callbacks, meter=self._meter
            )
            figures = dataclasses.replace(figures, peak_bytes=self._gauge.peak())
            self._position = (request.trial, number)
            if request.purpose == "search":
                figures = self._noise.look(self._programs.current, request, figures)
                yield from self.said()
            reached = request.until is not None and request.until.met(figures.value)
            stopped = callbacks is not None and callbacks.stopped
            over = figures.valueless or reached or stopped
            if request.purpose == "search" and callbacks is not None and (over or number == request.last_epoch):
                self._programs.finish()
            checkpoint = None if over else self._checkpoint(request, number, figures.train_seconds)
            yield EpochDone(request.trial, figures, compile_seconds, process.memory_info().rss, checkpoint, stopped)
            compile_seconds = 0.0
            if over:
                return

    def _checkpoint(self, request: Train, epoch: int, train_seconds: float) -> bytes | None:
        """The state after an epoch, where that is worth its cost."""
        if epoch >= request.last_epoch or not self._pace.due(train_seconds, request.save_seconds):
            return None
        return self._programs.packed(self._pace)

    def said(self) -> Iterator[Remark]:
        """What there is to say, once."""
        remarks, self.remarks = self.remarks, []
        return map(Remark, remarks)

    def _measure(self, request: Measure) -> Iterator[Answer]:
        from batchopt.training.accumulation import check_divides
        from batchopt.training.measure import measure

        self._position = None
        self._programs.current.engine.micro_batch_size = None
        if not asked_by(self._task.build_model, {"batch_size": None}):
            # Where it asks for the batch size, it may accumulate as many batches as that needs.
            check_divides(self._programs.current.model.optimizer, request.batch_sizes)
        start = self._programs.current.state()
        yield from measure(self._programs.current, self._memory, self._gauge, request.batch_sizes, request.seconds)
        self._programs.current.load(start)

    def _save(self, request: Save) -> Saved:
        if self._position is None or self._position[0] != request.trial:
            raise ValueError(f"trial {request.trial} is not on the device")
        return Saved(*self._position, self._programs.packed())

    def _save_model(self, request: SaveModel) -> ModelSaved:
        """Write the model; it is trained no further, as averages may now stand in the place of its weights."""
        from batchopt.training.saving import save

        if self._purpose != "model" or self._position is None:
            raise ValueError("a model is saved after it was trained to be kept, and no trial's is")
        self._position = None
        self._programs.finish()
        return ModelSaved(request.path, *save(self._programs.current, request.path, self._task.metric))

    def _open_test(self, request: OpenTest) -> OpenedTest:
        """The one place where the test set is looked at; a trial of the search is refused."""
        from batchopt.training.data_check import check_with
        from batchopt.training.figures import loss_of
        from batchopt.training.test_set import evaluate

        if self._purpose != "confirm" or self._position is None or self._position[0] != request.run:
            raise ValueError(f"the test set is opened for a run that confirms; {request.run} is none on this device")
        self._programs.finish()
        model, data = self._programs.current.model, self._resident.data
        check(data, ["test"])
        check_with(model, data, parts=["test"])
        figures = evaluate(model, data.test)
        return OpenedTest(request.run, loss_of(figures), figures[self._task.metric])


def main() -> None:
    """Serve the requests that come over the inherited socket until it closes."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    # Whatever the user's code prints must not mix with the study's own standard output.
    os.dup2(2, 1)
    with contextlib.suppress(OSError):
        # Where the host's memory runs out, the kernel is to end the worker and not the study.
        OOM_SCORE.write_text("500")
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[2]),), daemon=True).start()
    try:
        trainer: Trainer | None = None
        while True:
            request: Opening | Request = pickle.loads(connection.recv_bytes())
            if isinstance(request, Opening):
                with importing():
                    setup, machine, missing = opened(request)
                trainer = Trainer(setup, machine)
                for remark in (*map(Remark, missing), *trainer.said()):
                    connection.send(remark)
                connection.send(trainer.ready)
            else:
                assert trainer is not None, "an opening comes first"
                for answer in trainer.answer(request):
                    connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # noqa: BLE001  the user's code may raise anything; the study's process decides
        connection.send(failure(error))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
