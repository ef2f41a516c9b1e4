"""What the curves of trials say that a table does not: whether training ends too soon, where it diverges."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from batchopt.question.metric import Metric
from batchopt.store.attributes import DIVERGED
from batchopt.store.history import TrialRecord

LAST = 4
"""Epochs at the end of a curve that are looked at; with fewer than three nothing is said."""

STOPPED = 0.001
"""A metric that moves by less than this part of its range an epoch has stopped: less than runs differ by."""

MOVED = 0.02
"""A loss that moves by less than this part of itself an epoch does not move."""

STUCK = 0.01
"""A metric within this part of its range of what it was in the first epoch has never moved."""


def windowed(counting: int, all_trials: int) -> list[str]:
    """Of how many trials the advice is, where not of all."""
    if counting == all_trials:
        return []
    return [f"This study watches its newest trials: what is advised is of {counting} of its {all_trials}."]


def notes(
    trials: Sequence[TrialRecord], recommended: int | None, metric: Metric, epochs: int | None = None
) -> list[str]:
    """What to keep in mind, a sentence or two each.

    Args:
        trials: of one study.
        recommended: the number of the trial whose configuration is advised; None where none is.
        metric: what the study watches.
        epochs: of a whole trial; one that has ended by itself before has had as many as it wanted.
    """
    unit = _range(trials, metric)
    whole = [trial for trial in trials if trial.state != "complete" or len(trial.epochs) >= (epochs or 0)]
    said = [note for trial in whole if trial.number == recommended for note in _curve_notes(trial, metric, unit)]
    raw = next((trial.last.get("raw_value") for trial in trials if trial.number == recommended), None)
    if raw is not None:
        said.append(
            "Values are those of the weights that the optimizer averages, as fit leaves them behind; with the weights "
            f"as they are trained on, the recommended trial has {metric.shown(raw)}."
        )
    same = never_varies(trials)
    if same is not None:
        said.append(
            f"The metric is {same:g} after every epoch of every trial, so nothing can be advised. Look whether it "
            "belongs to the labels and the last layer (keras.metrics.Accuracy, for instance, compares probabilities "
            "with labels; metrics=['accuracy'] does not), and whether the model trains at all."
        )
    diverged = [trial for trial in trials if trial.note == DIVERGED and trial.batch_size and trial.learning_rate]
    if diverged:
        sizes = sorted({trial.batch_size for trial in diverged if trial.batch_size})
        rates = [trial.learning_rate for trial in diverged if trial.learning_rate]
        said.append(
            f"{len(diverged)} of {len(trials)} trials diverged, at batch sizes {', '.join(map(str, sizes))} and "
            f"learning rates from {min(rates):.2g}."
        )
        ended = [trial for trial in trials if trial.epochs]
        if len(ended) > 1 and all(trial.note == DIVERGED and len(trial.epochs) == 1 for trial in ended):
            said.append(
                "All of them in their first epoch, at every learning rate: look for NaN and labels out of range in "
                "what load_data returns (a stream is not read through beforehand), or try lower rates."
            )
    return said


def never_varies(trials: Sequence[TrialRecord]) -> float | None:
    """The one value that the metric has after all epochs of all trials, of which several have ended; else None."""
    values = {epoch["value"] for trial in trials for epoch in trial.epochs}
    ended = sum(trial.state == "complete" and trial.note != DIVERGED for trial in trials)
    return values.pop() if ended > 1 and len(values) == 1 else None


def _range(trials: Sequence[TrialRecord], metric: Metric) -> float:
    """What there is between a metric's worst and best value: 1 for an accuracy, for another one as it was seen."""
    values = [e["value"] for t in trials if t.note != DIVERGED for e in t.epochs if e["value"] is not None]
    return 1.0 if metric.is_accuracy or not values else (max(values) - min(values)) or 1.0


def _curve_notes(trial: TrialRecord, metric: Metric, unit: float) -> list[str]:
    """What the end of one curve says, and what to try."""
    last = trial.epochs[-LAST:]
    if len(last) < 3 or not all(_finite(epoch) for epoch in last):
        return []
    better, name = _slope([metric.score(epoch["value"]) for epoch in last]), metric.title
    losses = [epoch["validation_loss"] for epoch in last]
    loss = _slope(losses) / max(abs(statistics.fmean(losses)), 1e-12)
    training = _slope([epoch["train_loss"] for epoch in last])
    change = f"{losses[0]:.3g} to {losses[-1]:.3g} in its last {len(last)} epochs"
    if training < 0 and loss < -MOVED and _stuck(trial, "train_value", unit) and _stuck(trial, "value", unit):
        return [
            f"Its validation loss falls ({change}) and its {name} has never moved. Check that the loss, the "
            "output layer and the labels match, or try higher learning rates."
        ]
    if abs(better) < STOPPED * unit and loss > MOVED:
        return [
            f"Its validation loss rises ({change}) while {name} has stopped: it overfits. Try fewer epochs, dropout, "
            "weight decay or more data."
        ]
    if abs(better) < STOPPED * unit and loss < -MOVED:
        return [
            f"Its validation loss still falls ({change}) while {name} has stopped. More epochs improve "
            f"confidence, not {name}; try a learning rate that decays."
        ]
    if better > STOPPED * unit:
        return [
            f"Its {name} still improves by {metric.shown_amount(better)} an epoch: with more epochs another batch size "
            "may be best."
        ]
    return []


def loss_spread(trials: Sequence[TrialRecord]) -> float | None:
    """How far the validation loss jumps from epoch to epoch: the median trial's, around a line through its last epochs.

    Trials that diverged are left out; None where no other has three epochs.
    """
    found = []
    for trial in trials:
        last = trial.epochs[-LAST:]
        losses = [epoch["validation_loss"] for epoch in last if epoch.get("validation_loss") is not None]
        if trial.note == DIVERGED or len(losses) < 3:
            continue
        slope, intercept = statistics.linear_regression(range(len(losses)), losses)
        squares = [(loss - intercept - slope * at) ** 2 for at, loss in enumerate(losses)]
        # Two of the numbers went into the line.
        found.append(math.sqrt(sum(squares) / (len(losses) - 2)))
    return statistics.median(found) if found else None


def _slope(values: Sequence[float]) -> float:
    """Change from one epoch to the next, of a line through the values."""
    return statistics.linear_regression(range(len(values)), values).slope


def _stuck(trial: TrialRecord, name: str, unit: float) -> bool:
    first, last = trial.epochs[0].get(name), trial.epochs[-1].get(name)
    return first is not None and last is not None and abs(last - first) < STUCK * unit


def _finite(epoch: dict[str, float | None]) -> bool:
    return all(epoch.get(name) is not None for name in ("value", "validation_loss", "train_loss"))
