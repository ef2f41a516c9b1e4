"""Studies in other trackers of experiments: MLflow and TensorBoard, a listener each. Each trial is a run of its own.

A tracker is told as a study goes on, and is worth less than the study: one that fails is left out from then on, and
that is said once. A trial that is resumed goes on in the run that it has.
"""

from __future__ import annotations

import os
import socket
import struct
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchopt.errors import InvalidInput
from batchopt.events import Event, Listener, Noted, Opened, Stepped, Trained, TrialEnded, ignore
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.report.show.notebook import default_listener
from batchopt.text import first_line

SECONDS = "train_seconds"
"""What the seconds of an epoch are called in every tracker; its value is called as the metric is."""


STATUS = {"complete": "FINISHED", "pruned": "KILLED", "fail": "FAILED"}
"""What MLflow calls the ends of a trial."""


class Tracker(ABC):
    """A listener that keeps the trials of one study elsewhere.

    Args:
        listener: told everything first; in a notebook a bar is shown where there is none.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or default_listener()
        self._study, self._metric = "study", "value"
        self._begun: set[int] = set()
        self._works = True

    def __call__(self, event: Event) -> None:
        """Hear what happens."""
        self._listener(event)
        if not self._works:
            return
        try:
            self._hear(event)
        except Exception as error:  # noqa: BLE001  whatever keeps a tracker from it, the study is worth more
            self._works = False
            why = first_line(error) or type(error).__name__
            text = f"{type(self).__name__} is told no more of this study: {why}"
            self._listener(Noted(text, warning=True))
            if self._listener is ignore:
                warnings.warn(text, stacklevel=2)

    def behind(self, listener: Listener) -> Listener:
        """The tracker, with another listener that is told everything first."""
        self._listener = listener
        return self

    def _hear(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._study, self._metric = event.study, event.metric.name
        elif isinstance(event, Stepped):
            step = event.step
            self._begin_once(step.trial, {BATCH_SIZE: step.batch_size, LEARNING_RATE: step.learning_rate, **step.extra})
        elif isinstance(event, Trained):
            figures = event.figures
            told = {self._metric: figures.value, SECONDS: figures.train_seconds, "train_loss": figures.train_loss}
            told |= {"validation_loss": figures.validation_loss, "joules": figures.joules}
            self.tell(event.trial, figures.epoch, {name: value for name, value in told.items() if value is not None})
        elif isinstance(event, TrialEnded):
            self._begin_once(event.trial, {BATCH_SIZE: event.batch_size, LEARNING_RATE: event.learning_rate})
            self.end(event.trial, event.state, event.note)
            self._begun.discard(event.trial)

    def _begin_once(self, trial: int, params: Mapping[str, Any]) -> None:
        if trial not in self._begun:
            self.begin(trial, params)
            self._begun.add(trial)

    @abstractmethod
    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """A trial is trained, for the first time or again."""

    @abstractmethod
    def tell(self, trial: int, epoch: int, figures: Mapping[str, float]) -> None:
        """An epoch of it, counted from 1: the metric, seconds, and what else is known."""

    @abstractmethod
    def end(self, trial: int, state: str, note: str) -> None:
        """It is `complete`, `pruned` or `fail`, and why."""


class MLflow(Tracker):
    """Keeps each trial as a run of MLflow, in an experiment that is called as the study is; extra `mlflow`.

    Args:
        uri: of the tracking server, or of a database; MLflow's own default where None.
        listener: as of every tracker.

    Raises:
        InvalidInput: MLflow is not installed.
    """

    def __init__(self, uri: str | None = None, listener: Listener | None = None) -> None:
        super().__init__(listener)
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise InvalidInput(f"MLflow needs {error.name}: `pip install 'batchopt[mlflow]'`.") from None
        self._client = MlflowClient(uri)
        self._runs: dict[int, str] = {}

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """Make its run, or find it."""
        known = self._client.get_experiment_by_name(self._study)
        experiment = self._client.create_experiment(self._study) if known is None else known.experiment_id
        mine = f"tags.`batchopt.trial` = '{trial}'"
        found = self._client.search_runs([experiment], mine, max_results=1)
        if found:
            self._runs[trial] = found[0].info.run_id
            self._client.set_terminated(self._runs[trial], "RUNNING")
            return
        run = self._client.create_run(experiment, tags={"batchopt.trial": str(trial)}, run_name=f"trial {trial}")
        self._runs[trial] = run.info.run_id
        for name, value in params.items():
            self._client.log_param(self._runs[trial], name, value)

    def tell(self, trial: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Its metrics, by epoch."""
        for name, value in figures.items():
            self._client.log_metric(self._runs[trial], _named(name), value, step=epoch)

    def end(self, trial: int, state: str, note: str) -> None:
        """How it ended, as MLflow calls it; why, as a tag."""
        run = self._runs.pop(trial)
        self._client.set_tag(run, "batchopt.note", note or state)
        self._client.set_terminated(run, STATUS[state])


class TensorBoard(Tracker):
    """Keeps each trial as a run of TensorBoard, in a folder of its own; extra `tensorboard`. No TensorFlow is needed.

    Args:
        folder: what `tensorboard --logdir` is given.
        listener: as of every tracker.

    Raises:
        InvalidInput: TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] = "runs", listener: Listener | None = None) -> None:
        super().__init__(listener)
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
        except ModuleNotFoundError as error:
            raise InvalidInput(f"TensorBoard needs {error.name}: `pip install 'batchopt[tensorboard]'`.") from None
        self._events, self._summaries, self._sum = event_pb2, summary_pb2, masked_crc32c
        self._folder = Path(folder)
        self._files: dict[int, Path] = {}

    def begin(self, trial: int, params: Mapping[str, Any]) -> None:
        """A file of its own, beside those of earlier sessions."""
        run = self._folder / self._study.replace(os.sep, "_") / f"trial {trial}"
        run.mkdir(parents=True, exist_ok=True)
        # As TensorBoard's own are called: it reads them in this order.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._files[trial] = run / name
        self._write(trial, file_version="brain.Event:2")
        self.tell(trial, 0, {name: value for name, value in params.items() if isinstance(value, int | float)})

    def tell(self, trial: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Its scalars, by epoch; its configuration at epoch 0."""
        values = [self._summaries.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(trial, step=epoch, summary=self._summaries.Summary(value=values))

    def end(self, trial: int, state: str, note: str) -> None:
        """Nothing more is written to its file."""
        del self._files[trial]

    def _write(self, trial: int, **what: Any) -> None:
        """A record: its length, its bytes, and the check sum of each (TFRecord)."""
        content = self._events.Event(wall_time=time.time(), **what).SerializeToString()
        length = struct.pack("<Q", len(content))
        sums = [struct.pack("<I", self._sum(part)) for part in (length, content)]
        with self._files[trial].open("ab") as file:
            file.write(length + sums[0] + content + sums[1])


def _named(metric: str) -> str:
    """A metric's name, of the letters that MLflow takes."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in metric)
