"""`batchopt train`: train what a study recommends once more, and keep the model.

It is trained as a trial is, for all epochs or until it is at the target where the goal has one, with a seed of its own;
it is no trial, and nothing is written to the database. A checkpoint beside the model's file lets the same call go on
where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import get_args

from batchopt.errors import DeviceError, InvalidInput, TrainingFailed
from batchopt.events import Listener, Noted, Starting, TrainingModel
from batchopt.machine.capacity import Capacity
from batchopt.measured import Epoch
from batchopt.question.metric import Target
from batchopt.question.options import Budget, Configuration, Options
from batchopt.question.task import Task
from batchopt.report.answer.reading import read_evidence, read_stamp, read_study
from batchopt.report.answer.recommendation import Report
from batchopt.signals import Interruption
from batchopt.store.access import opened
from batchopt.store.address import shown_storage
from batchopt.store.attributes import ACCUMULATE, ENGINES
from batchopt.store.history import TrialRecord, open_study
from batchopt.store.stamp import Stamp, check_program, versions
from batchopt.study.model_file import Kept, ModelFile, sealed
from batchopt.study.single_run import SingleRun
from batchopt.study.trained_model import On, TrainedModel
from batchopt.text import printable
from batchopt.training.messages import EpochDone, ModelSaved, SaveModel, Train
from batchopt.training.seeds import model_seed
from batchopt.workers.cluster import LOCAL
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, known_capacity, ready_slot

NUMBER = 0
"""Of the model among those of a study, for its seed; there is one."""


def check_on(on: str, options: Options) -> Options:
    """What is to be trained on, checked; and the options of a worker of this machine, which alone can write here.

    Raises:
        InvalidInput: naming what to write.
    """
    if on not in get_args(On):
        raise InvalidInput(f"--on {on}: unknown. Use train, or all for the validation data too.")
    if options.ray not in (None, LOCAL):
        raise InvalidInput(
            f"--ray {options.ray}: a model is trained and written on this machine. Leave --ray out; `batchopt train` "
            "makes the model of a study that a cluster has trained."
        )
    # The machine to itself, so that seconds mean something.
    return dataclasses.replace(options, workers=None, ray=None, ray_cpus=None, ray_gpus=None)


def train_model(
    task: Task, file: ModelFile, *, name: str | None, storage: str, options: Options, on: On, listener: Listener
) -> TrainedModel:
    """Train what a study recommends, and keep the model.

    Args:
        task: what is trained.
        file: where it is kept.
        name, storage: where the study is; the name may be None where there is only one.
        options: how it is trained.
        on: on which data.
        listener: told what happens.

    Raises:
        BatchoptError: something the user can mend; where it was there from the start, nothing was written.
        Interrupted: by a signal; the same call goes on.
    """
    file.check()
    options = check_on(on, options)
    name, stamp = read_stamp(storage, name)
    report = read_evidence(storage, name).report
    if report.advised is None:
        lacking = "is complete" if report.target is None else f"reached {report.target}"
        raise InvalidInput(
            f"study {printable(name)} in {report.storage} recommends nothing yet: no trial {lacking}. Go on with it "
            "first."
        )
    with opened(storage) as database:
        kept = open_study(database, name).user_attrs
    if options.accumulate is None:
        options = dataclasses.replace(options, accumulate=kept.get(ACCUMULATE, False))
    with Interruption() as interruption:
        engines = kept.get(ENGINES, {})
        setup = first_setup(task, options, stamp.space, goal=stamp.goal, budget=Budget(trials=1), known_engines=engines)
        setup = dataclasses.replace(setup, join_validation=on == "all")
        listener(Starting(1))
        with ready_slot(setup, smallest=stamp.space.smallest, interruption=interruption, listener=listener) as slot:
            assert slot.ready is not None
            check_program(name, shown_storage(storage), stamp, slot.ready.program)
            capacity = known_capacity(slot, stamp.space, options, storage, interruption=interruption, listener=listener)
            epochs, target = stamp.goal.epochs, stamp.target
            if on == "all":
                # Validation has nothing to say of when to end; the trial that is recommended has.
                epochs, target = _epochs_of(report, read_study(storage, name), epochs), None
            return _Training(slot, capacity, file, stamp, report, on, epochs, target, interruption, listener).run()


def _epochs_of(report: Report, trials: Sequence[TrialRecord], epochs: int) -> int:
    """How many epochs the trial of what is recommended took, or the one of its batch size whose rate is nearest."""
    assert report.advised is not None
    row = report.advised.recommended
    same = [trial for trial in trials if trial.state == "complete" and trial.batch_size == row.batch_size]
    nearest = min(
        (trial for trial in same if trial.learning_rate),
        key=lambda trial: (trial.number != row.trial, abs(math.log((trial.learning_rate or 1.0) / row.learning_rate))),
        default=None,
    )
    return epochs if nearest is None else len(nearest.epochs)


class _Training:
    """One training; arguments as in `train_model`.

    Args:
        slot: with a worker that is ready.
        capacity: of its machine.
        epochs: at most.
        target: at which it ends; None for none.
    """

    def __init__(
        self,
        slot: Slot,
        capacity: Capacity,
        file: ModelFile,
        stamp: Stamp,
        report: Report,
        on: On,
        epochs: int,
        target: Target | None,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        assert report.advised is not None and slot.ready is not None
        best = report.advised.recommended
        self._slot, self._file, self._stamp, self._report, self._on = slot, file, stamp, report, on
        self._configuration = Configuration(best.batch_size, best.learning_rate, dict(best.extra))
        self._epochs, self._target = epochs, target
        self._micro_batch_size = capacity.micro_batch_size(best.batch_size)
        self._listener = listener
        self._single = SingleRun(
            slot,
            "training the model",
            then="it goes on from its last checkpoint",
            too_large=partial(_too_large, best.batch_size),
            interruption=interruption,
            listener=listener,
        )
        self._keeps = True
        self._belongs = {
            **asdict(self._configuration),
            "study": report.study,
            "seed": self.seed,
            "goal": stamp.goal.describe(),
            "epochs": epochs,
            "on": on,
            "data": slot.ready.program.data,
            "model": slot.ready.program.model,
        }

    @property
    def seed(self) -> int:
        """Of the model's initial weights."""
        return model_seed(self._stamp.seed, NUMBER)

    def run(self) -> TrainedModel:
        """Train it, again from its last checkpoint where its worker dies."""
        kept = self._file.kept(self._belongs)
        if kept is not None:
            self._listener(Noted(f"{printable(self._file.part)}: training goes on after epoch {kept.epoch}"))
        elif self._file.part.exists():
            self._listener(Noted(f"{printable(self._file.part)} is of another training; this one begins anew"))
        return self._single.tried(lambda: self._attempt(self._file.kept(self._belongs)))

    def _attempt(self, kept: Kept | None) -> TrainedModel:
        configuration, from_epoch = self._configuration, 0 if kept is None else kept.epoch
        self._single.ask(
            Train(
                trial=NUMBER,
                study_seed=self._stamp.seed,
                batch_size=configuration.batch_size,
                learning_rate=configuration.learning_rate,
                extra=configuration.extra,
                from_epoch=from_epoch,
                until_epoch=self._epochs,
                checkpoint=None if kept is None else kept.state,
                last_epoch=self._epochs,
                purpose="model",
                until=self._target,
                micro_batch_size=self._micro_batch_size,
            )
        )
        self._listener(TrainingModel(configuration, self._stamp.metric, from_epoch, self._epochs))
        seconds = 0.0 if kept is None else kept.seconds
        while True:
            answer = self._single.heard()
            assert isinstance(answer, EpochDone)
            figures = answer.figures
            # From its beginning, where another version wrote the checkpoint.
            seconds = figures.train_seconds + (seconds if figures.epoch > 1 else 0.0)
            self._listener(TrainingModel(configuration, self._stamp.metric, figures.epoch, self._epochs, figures))
            if figures.valueless:
                self._file.part.unlink(missing_ok=True)
                raise TrainingFailed(
                    f"the recommended {configuration.batch_size} x {configuration.learning_rate:.3g} diverged in epoch "
                    f"{figures.epoch} with seed {self.seed}; no model was written. More trials may recommend another "
                    "learning rate."
                )
            if answer.checkpoint is not None:
                self._keep(Kept(figures.epoch, seconds, answer.checkpoint))
            reached = self._target is not None and self._target.met(figures.value)
            if reached or answer.stopped or figures.epoch == self._epochs:
                return self._written(figures, seconds, reached=None if self._target is None else reached)

    def _keep(self, kept: Kept) -> None:
        """Write a checkpoint; what cannot be written is said once, and training goes on."""
        try:
            self._file.keep(self._belongs, kept)
        except OSError as error:
            if self._keeps:
                lost = "an interruption would cost the epochs since the last one"
                self._listener(Noted(f"{printable(self._file.part)}: {error.strerror}; {lost}", warning=True))
            self._keeps = False

    def _written(self, last: Epoch, seconds: float, *, reached: bool | None) -> TrainedModel:
        """Have the worker write the model, and put it in its place."""
        if reached is False:
            assert self._target is not None
            self._listener(Noted(f"the model has not reached {self._target} after all epochs"))
        new = self._file.temporary()
        try:
            self._single.ask(SaveModel(str(new)))
            answer = self._single.heard()
            assert isinstance(answer, ModelSaved)
            trained = self._described(last, seconds, answer, sealed(new), reached=reached)
            self._file.publish(new, trained.describe())
            return trained
        except BaseException:
            # It may write still.
            self._slot.worker.kill()
            raise
        finally:
            new.unlink(missing_ok=True)

    def _described(
        self, last: Epoch, seconds: float, saved: ModelSaved, sha256: str, *, reached: bool | None
    ) -> TrainedModel:
        ready, configuration = self._slot.ready, self._configuration
        assert ready is not None
        program = ready.program
        joined = program.validation_examples if self._on == "all" else 0
        return TrainedModel(
            model=str(self._file.path),
            study=self._report.study,
            storage=self._report.storage,
            trials=sum(count for state, count in self._report.trials.items() if state not in ("running", "waiting")),
            batch_size=configuration.batch_size,
            learning_rate=configuration.learning_rate,
            extra=configuration.extra,
            goal=self._stamp.goal.describe(),
            epochs=last.epoch,
            target_reached=reached,
            on=self._on,
            seed=self.seed,
            engine=ready.engine,
            machine=ready.machine.describe(),
            versions=versions() | ready.machine.versions,
            train_seconds=seconds,
            metric=self._stamp.metric,
            train_loss=last.train_loss,
            train_value=last.train_value,
            validation_loss=_finite(saved.validation_loss),
            value=_finite(saved.value),
            data=program.data,
            train_examples=program.train_examples + joined,
            validation_examples=program.validation_examples,
            sha256=sha256,
        )


def _too_large(batch_size: int, why: str) -> DeviceError:
    return DeviceError(
        f"batch size {batch_size} ran out of memory: {why}. The same command goes on where there is more."
    )


def _finite(figure: float | None) -> float | None:
    """A figure as JSON has it."""
    return None if figure is None or not math.isfinite(figure) else figure
