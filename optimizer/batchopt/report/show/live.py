"""What the terminal shows: tables of a report, and the live view of a study that goes on."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from batchopt.events import (
    Confirmed,
    Confirming,
    Ended,
    Event,
    Noted,
    Opened,
    Probing,
    Starting,
    Stepped,
    Trained,
    TrainingModel,
    TrialEnded,
)
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.question.metric import Metric
from batchopt.report.show.terminal import LAST_TRIALS
from batchopt.search.steps import Step
from batchopt.store.attributes import DIVERGED
from batchopt.text import printable
from batchopt.words import counted, duration

CONFIRMING, MODEL = -1, -2
"""Stand for a trial's number where a run confirms, and where the model that is kept is trained."""


def opened_lines(opened: Opened) -> list[str]:
    """The study, and the machine and the engine or else the command, a line each."""
    goes_on = bool(opened.finished or opened.running)
    history = [f"{counted(opened.finished, 'trial')} finished" if goes_on else "new"]
    history += [f"{opened.trials} in all"] if opened.trials is not None else []
    history += [f"{opened.running} to be taken up again"] if opened.running else []
    study = f"study    {opened.study} in {opened.storage} ({', '.join(history)})"
    if opened.machine is None:
        return [study, f"command  {printable(opened.command)}"]
    return [study, f"machine  {_machine_words(opened, opened.machine)}", f"engine   {_engine_words(opened)}"]


def _machine_words(opened: Opened, machine: Machine) -> str:
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    where = f"GPU {machine.device}, {cores}" if machine.kind == "gpu" else f"CPU {machine.processor}, {cores}, no GPU"
    held = "" if opened.max_batch_size is None else f", holds batch sizes up to {opened.max_batch_size}"
    held += ", larger ones in micro-batches" if held and opened.accumulate else ""
    return f"{where}, {machine.memory_bytes / 2**30:.0f} GiB{held}"


def _engine_words(opened: Opened) -> str:
    """With what compiling costs, or the faster one a step would seem to have been passed over for nothing."""
    timed = [timing for timing in opened.timings if not timing.refusal]
    said = [
        f"{timing.engine} {1e6 * timing.step_time_s:.0f} us a step, {timing.compile_seconds:.1f} s to compile"
        for timing in timed
    ]
    said += [f"{timing.engine} refused: {timing.refusal}" for timing in opened.timings if timing.refusal]
    return opened.engine + (f" ({'; '.join(said)})" if said else "")


def probing_line(probing: Probing) -> str:
    """How far the probe is."""
    if probing.batch_size is None:
        return "measuring the machine: timing steps"
    return f"measuring the machine: batch size {probing.batch_size}, {probing.done + 1} of about {probing.of}"


def trial_line(ended: TrialEnded) -> str:
    """One trial in one line."""
    value = ended.metric.shown(None if ended.note == DIVERGED else ended.value)
    return _trial_line(ended, value, ended.epochs, f"{ended.train_seconds:6.2f} s  {ended.note or ended.state}")


def paused_line(step: Step, figures: Epoch, metric: Metric) -> str:
    """A trial that waits at a rung, in one line."""
    return _trial_line(step, metric.shown(figures.value), figures.epoch, "          paused")


def _trial_line(of: TrialEnded | Step, value: str, epochs: int, end: str) -> str:
    configuration = f"{of.batch_size:>6} x {of.learning_rate:<8.3g}"
    return f"trial {of.trial:>3}  {configuration} {value:>7}  {counted(epochs, 'epoch'):<8}  {end}"


def confirmed_line(event: Confirmed) -> str:
    """One run that confirms, in one line; what the test set says is told when all are there."""
    run = event.run
    value = "diverged" if run.validation_value is None else event.metric.shown(run.validation_value)
    return (
        f"confirm {event.done:>2}/{event.of}  {run.role:<11}  {run.batch_size:>6} x {run.learning_rate:<8.3g} "
        f"{value:>8}  run {run.run + 1} of {event.seeds}  {run.train_seconds:6.2f} s"
    )


def model_line(event: TrainingModel, figures: Epoch) -> str:
    """The model that is kept after an epoch, in one line."""
    configuration = event.configuration
    return (
        f"model epoch {event.epoch:>2}/{event.epochs}  {configuration.batch_size:>6} x "
        f"{configuration.learning_rate:<8.3g} {event.metric.shown(figures.value):>8}  {figures.train_seconds:6.2f} s"
    )


def step_line(step: Step, epochs: int, metric: Metric) -> str:
    """What is trained next, and why: its expected gain, and what it costs."""
    line = f"trial {step.trial} {step.reason}: {step.batch_size} x {step.learning_rate:.3g}, "
    line += f"{step.from_epoch} of {counted(epochs, 'epoch')}"
    if step.expected_gain is not None:
        line += f", expected gain {metric.shown_amount(step.expected_gain)}"
        line += f" for {duration(step.expected_seconds)}" if step.expected_seconds else ""
    return line


class PlainView:
    """Not on a terminal: a few lines at the start, one for each trial that ends or is paused, one at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._opened: Opened | None = None
        self._steps: dict[int, Step] = {}
        self._paused: dict[int, str] = {}
        self._measuring = False

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        for line in self._lines(event):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _lines(self, event: Event) -> list[str]:
        if isinstance(event, Probing) and not self._measuring:
            self._measuring = True
            return ["measuring the machine: which batch sizes fit, and what a step of each takes ..."]
        if isinstance(event, Opened):
            self._opened = event
            return opened_lines(event)
        if isinstance(event, Stepped):
            return self._begun(event.step)
        if isinstance(event, Trained):
            self._look(event)
        if isinstance(event, TrialEnded):
            return [trial_line(event)]
        if isinstance(event, Confirmed):
            return [confirmed_line(event)]
        if isinstance(event, TrainingModel) and event.figures is not None:
            return [model_line(event, event.figures)]
        if isinstance(event, Noted):
            return [event.text]
        return [f"ended: {event.reason}"] if isinstance(event, Ended) else []

    def _begun(self, step: Step) -> list[str]:
        """The trials that were paused, which is known once another step is begun and not their own."""
        self._steps[step.trial] = step
        self._paused.pop(step.trial, None)
        lines, self._paused = list(self._paused.values()), {}
        return lines

    def _look(self, event: Trained) -> None:
        step, opened = self._steps.get(event.trial), self._opened
        if step is not None and opened is not None and step.until_epoch <= event.figures.epoch < opened.epochs:
            self._paused[event.trial] = paused_line(step, event.figures, opened.metric)


class LiveView:
    """On a terminal: bars for trials and epochs, the last trials, the incumbent, the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._opened: Opened | None = None
        self._status = "checking"
        self._reason = ""
        self._last: deque[TrialEnded] = deque(maxlen=LAST_TRIALS)
        self._best: TrialEnded | None = None
        self._begun: set[int] = set()
        self._since = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._trials = self._progress.add_task("trials", total=None, left="", visible=False)
        self._epochs: dict[int, TaskID] = {}
        self._until: dict[int, int] = {}
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        # The live part vanishes; what is worth keeping is printed once more.
        if self._opened is not None:
            for line in opened_lines(self._opened):
                self._console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Starting):
            self._status = "starting TensorFlow, loading data, timing the engines"
        elif isinstance(event, Probing):
            self._status = probing_line(event)
        elif isinstance(event, Opened):
            self._open(event)
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Trained):
            self._train(event)
        elif isinstance(event, TrialEnded):
            self._end(event)
        elif isinstance(event, Confirming):
            self._confirm(event)
        elif isinstance(event, Confirmed):
            self._progress.update(self._trials, description="confirming", completed=event.done, total=event.of)
            self._console.print(confirmed_line(event), markup=False, highlight=False)
        elif isinstance(event, TrainingModel):
            self._train_model(event)
        elif isinstance(event, Noted):
            self._console.print(event.text, markup=False, style="yellow")
        else:
            self._status = f"ended: {event.reason}"

    def __rich__(self) -> RenderableType:
        if self._opened is None:
            return Group(Text(f"{self._status} ..."), self._progress)
        parts: list[RenderableType] = [Text("\n".join(opened_lines(self._opened)), style="dim"), ""]
        parts += [Text(trial_line(ended)) for ended in self._last]
        if self._best is not None:
            best = self._best
            reached = "" if best.cost_to_target is None else f"{best.note}  "
            parts.append(
                Text(
                    f"best so far  {best.batch_size} x {best.learning_rate:.3g}  {best.metric.shown(best.value)}  "
                    f"{reached}(trial {best.trial})",
                    style="bold green",
                )
            )
        return Group(*parts, "", self._progress, Text(self._reason, style="dim"))

    def _open(self, opened: Opened) -> None:
        self._opened = opened
        self._since = time.monotonic()
        self._best = opened.best
        self._progress.update(self._trials, total=opened.trials, completed=opened.finished, visible=True, left="")

    def _step(self, event: Stepped) -> None:
        step = event.step
        assert self._opened is not None
        self._hide(step.trial)
        self._epochs[step.trial] = self._progress.add_task(
            f"trial {step.trial}: {step.batch_size} x {step.learning_rate:.3g}",
            total=self._opened.epochs,
            completed=step.from_epoch,
            left="",
        )
        self._until[step.trial] = step.until_epoch
        # Trials that are put aside end late, so it is the begun ones that tell how far the study is.
        self._begun.add(step.trial)
        begun = self._opened.finished + len(self._begun)
        self._progress.update(self._trials, completed=begun, left=self._time_left(begun))
        self._reason = step_line(step, self._opened.epochs, self._opened.metric)

    def _train(self, event: Trained) -> None:
        """Move the trial's bar; one that has reached the end of its step may now wait for long, and is not shown."""
        if event.figures.epoch >= self._until[event.trial]:
            self._hide(event.trial)
        elif event.trial in self._epochs:
            self._progress.update(self._epochs[event.trial], completed=event.figures.epoch)

    def _confirm(self, event: Confirming) -> None:
        """A bar for the run that confirms; there is one at a time, and no trial has its number."""
        configuration = event.configuration
        what = f"{event.role}: {configuration.batch_size} x {configuration.learning_rate:.3g}, run {event.run + 1}"
        self._status = self._reason = "confirming: the test set is opened once for each run, and searched with by none"
        if CONFIRMING not in self._epochs:
            self._epochs[CONFIRMING] = self._progress.add_task(what, left="")
            self._progress.update(self._trials, visible=True, left="")
        self._progress.update(self._epochs[CONFIRMING], description=what, completed=event.epoch, total=event.epochs)

    def _train_model(self, event: TrainingModel) -> None:
        """A bar for the model that is kept."""
        self._status = self._reason = "training the model with what is recommended"
        if MODEL not in self._epochs:
            self._hide(CONFIRMING)
            self._epochs[MODEL] = self._progress.add_task("model", left="")
        configuration, figures = event.configuration, event.figures
        what = f"model: {configuration.batch_size} x {configuration.learning_rate:.3g}"
        what += "" if figures is None else f", {event.metric.shown(figures.value)}"
        self._progress.update(self._epochs[MODEL], description=what, completed=event.epoch, total=event.epochs)

    def _hide(self, trial: int) -> None:
        if trial in self._epochs:
            self._progress.remove_task(self._epochs.pop(trial))

    def _end(self, ended: TrialEnded) -> None:
        self._last.append(ended)
        if ended.state == "complete" and ended.value is not None and ended.better_than(self._best):
            self._best = ended
        self._hide(ended.trial)

    def _time_left(self, begun: int) -> str:
        assert self._opened is not None
        done = len(self._begun) - 1
        if self._opened.trials is None or done < 1 or begun >= self._opened.trials:
            return ""
        left = (time.monotonic() - self._since) / done * (self._opened.trials - begun + 1)
        return f"about {duration(round(left))} left"
