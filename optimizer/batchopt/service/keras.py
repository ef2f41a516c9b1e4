"""A plain Keras `fit` as a trial of the service: one callback. It runs in the job, and needs Keras alone.

with ask("http://127.0.0.1:8089", "my-study") as trial:
    model.fit(..., batch_size=trial.batch_size, epochs=trial.until_epoch, initial_epoch=trial.from_epoch,
              callbacks=[BatchoptCallback(trial)])
"""

from __future__ import annotations

import io
import time
from typing import Any

import keras
import numpy as np

from batchopt.service.client import Trial


class BatchoptCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells each epoch of a `fit`, and ends it where the service says so.

    Args:
        trial: whose batch size and learning rate are trained with; entered.
        monitor: the name of the study's metric in the logs of Keras; the study's own where None.

    A trial that is paused is kept with all variables of the model and its optimizer, and goes on from them; what the
    callbacks of the job's own have come to is not.
    """

    def __init__(self, trial: Trial, monitor: str | None = None) -> None:
        super().__init__()
        self._trial = trial
        self._monitor = monitor or trial.metric
        self._began = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Go on from what was saved; raises TypeError for what another kind of job has saved."""
        kept = self._trial.state()
        if kept is None:
            return
        if not isinstance(kept, bytes):
            raise TypeError(f"trial {self._trial.number}: its state is at {kept}, where no `fit` has put it.")
        with np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
            for number, variable in enumerate(self._variables()):
                variable.assign(arrays[str(number)])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The clock of the epoch begins."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the epoch; raises ValueError where the metric is not in the logs."""
        logs = logs or {}
        if self._monitor not in logs:
            raise ValueError(f"metric {self._monitor!r} is not in the logs: {', '.join(logs)}. Give `monitor` one.")
        losses = {"loss": logs.get("loss"), "validation_loss": logs.get("val_loss")}
        told = {name: float(value) for name, value in losses.items() if value is not None}
        verdict = self._trial.tell(logs[self._monitor], time.perf_counter() - self._began, **told)
        if verdict != "continue":
            self.model.stop_training = True
        if verdict == "pause":
            state = io.BytesIO()
            arrays: dict[str, Any] = {str(number): np.asarray(each) for number, each in enumerate(self._variables())}
            np.savez(state, **arrays)
            self._trial.save(state.getvalue())

    def _variables(self) -> list[Any]:
        """Of the model and its optimizer, each once, in an order that is the same for the same model."""
        self.model.optimizer.build(self.model.trainable_variables)
        return list({id(each): each for each in (*self.model.variables, *self.model.optimizer.variables)}.values())
