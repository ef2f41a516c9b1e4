"""What a notebook shows while a study goes on: one bar, and the best so far beside it."""

from __future__ import annotations

import sys
from typing import Any

from batchopt.events import Confirmed, Ended, Event, Listener, Noted, Opened, TrainingModel, TrialEnded, ignore


def default_listener() -> Listener:
    """A bar in a notebook; elsewhere nobody listens who was not named."""
    return Bar() if in_notebook() else ignore


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, and no terminal or script."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class Bar:
    """A progress bar of tqdm's, a widget where the notebook has such."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._best: TrialEnded | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._best = event.best
            self._begin(f"study {event.study}", event.trials, event.finished)
        elif isinstance(event, TrialEnded):
            self._end(event)
        elif isinstance(event, Confirmed):
            if event.done == 1 or self._bar is None:
                self._begin("confirming", event.of, event.done - 1)
            self._bar.update(1)
        elif isinstance(event, TrainingModel):
            if event.figures is None or self._bar is None:
                self._begin("training the model", event.epochs, event.epoch)
            else:
                self._bar.update(1)
        elif isinstance(event, Noted):
            self._said(event.text)
        elif isinstance(event, Ended):
            self._said(f"ended: {event.reason}")
            self._close()

    def _begin(self, what: str, total: int | None, done: int) -> None:
        from tqdm.auto import tqdm

        self._close()
        self._bar = tqdm(desc=what, total=total, initial=done)

    def _end(self, ended: TrialEnded) -> None:
        if ended.state == "complete" and ended.value is not None and ended.better_than(self._best):
            self._best = ended
        if self._bar is not None:
            self._bar.update(1)
            if self._best is not None:
                best = self._best
                shown = f"{best.batch_size} x {best.learning_rate:.3g}: {best.metric.shown(best.value)}"
                self._bar.set_postfix_str(f"best {shown}")

    def _said(self, text: str) -> None:
        if self._bar is None:
            self._begin("batchopt", None, 0)
        self._bar.write(text, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
