"""What would change the answer: an edge of the space, too few trials, a machine that was busy."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchopt.goals.to_target import ToTargetKind
from batchopt.question.metric import Metric
from batchopt.question.space import SearchSpace
from batchopt.store.history import TrialRecord
from batchopt.words import chance, compared, counted, duration

if TYPE_CHECKING:
    from batchopt.search.advice import Advice, AgainstDefault

AT_THE_EDGE = 0.03
"""A learning rate is at an edge where it is within this part of the range, in logarithms."""

WIDER = 8
"""By how much a range that is too narrow is to be widened."""

BUSY, BUSY_EPOCHS = 1.5, 5
"""Of a batch size's epochs, of which there are so many at least, one in ten takes so many times the median or more."""


def edges(advice: Advice, space: SearchSpace, *, most: int, to_target: ToTargetKind | None = None) -> list[str]:
    """Whether what is recommended, or what is expected best, lies where the search was not allowed to go on.

    Args:
        advice: of the study.
        space: of the study.
        most: the largest batch size that could be searched: the training examples, or what the machine holds.
        to_target: the goal, where it is the least of something to a target.
    """
    said = []
    better = "be better" if to_target is None else to_target.to_be_less
    larger = "be faster and as good" if to_target is None else better
    size, rate = advice.recommended.batch_size, advice.recommended.learning_rate
    low, high = space.smallest, space.largest
    if low < high:
        if size == high and 2 * high <= most:
            said.append(
                f"{size} is the largest batch size of this study, and a larger one may {larger}: "
                f"--batch-sizes {low}..{min(WIDER * high, most)} in another --study."
            )
        elif low > 1 and low in (size, advice.best.batch_size):
            said.append(
                f"{low} is the smallest batch size of this study, and a smaller one may {better}: "
                f"--batch-sizes {max(low // WIDER, 1)}..{high} in another --study."
            )
    low_rate, high_rate = space.learning_rate
    if low_rate < high_rate:
        at = math.log(rate / low_rate) / math.log(high_rate / low_rate)
        if at > 1 - AT_THE_EDGE:
            said.append(
                f"{rate:.2g} is the highest learning rate of this study, and a higher one may {better}: "
                f"--learning-rates {low_rate:g}..{10 * high_rate:g} in another --study."
            )
        elif at < AT_THE_EDGE:
            said.append(
                f"{rate:.2g} is the lowest learning rate of this study, and a lower one may {better}: "
                f"--learning-rates {low_rate / 10:g}..{high_rate:g} in another --study."
            )
    return said


def too_few(advice: Advice) -> list[str]:
    """What more trials would tell, where what is recommended is not as sure as it is meant to be."""
    if advice.sure:
        return []
    rivals = [row for row in advice.undecided if row.runs is not None]
    if not rivals:
        return ["Too few trials to be surer: name a larger number (--trials)."]
    rival = max(rivals, key=lambda row: row.chance)
    assert rival.runs is not None and rival.seconds is not None
    return [
        f"Too few trials to be surer: {counted(rival.runs, 'more run')} each of {advice.recommended.batch_size} and of "
        f"{rival.batch_size} would tell the two apart in 8 of 10 cases, for {duration(rival.seconds)} of training."
    ]


def against_default(
    against: AgainstDefault | None, advice: Advice, metric: Metric, to_target: ToTargetKind | None = None
) -> list[str]:
    """What is gained over batch size 32 at Keras' default rate; of the cost to a target, where the goal has one."""
    if against is None:
        return []
    ours, rate = advice.recommended, f"{against.learning_rate:g}"
    if (ours.batch_size, ours.learning_rate) == (against.batch_size, against.learning_rate):
        return [f"It is what most would use without asking: batch size {against.batch_size}, learning rate {rate}."]
    default = f"Against what most would use, batch size {against.batch_size} with learning rate {rate}"
    if to_target is not None:
        beside = to_target.compared(ours.mean, ours.mean + against.gain)
        return [f"{default}: {beside}, {to_target.less} with {chance(against.chance)}."]
    by = metric.shown_amount(abs(against.gain))
    ends = _ends(against.low, against.high, metric)
    sure = against.chance if against.gain >= 0 else 1 - against.chance
    which = f"{'better' if against.gain >= 0 else 'worse'} with {chance(sure)}, by {by}"
    if chance(sure) == "even odds":
        which = "as likely better as worse"
    return [f"{default}: {which} (90 % interval {ends}), and {compared(ours.seconds, against.seconds)}."]


def _ends(low: float, high: float, metric: Metric) -> str:
    """Of an interval of a gain, each end in words: a sign says nothing beside `worse`, or of a loss."""
    amounts = [metric.shown_change(end).lstrip("+-") for end in (low, high)]
    words = ["better" if end >= 0 else "worse" for end in (low, high)]
    if words[0] == words[1]:
        amounts = amounts if low >= 0 else amounts[::-1]
        return f"{amounts[0]} to {amounts[1]} {words[0]}"
    return f"{amounts[0]} {words[0]} to {amounts[1]} {words[1]}"


def untrained(advice: Advice) -> list[str]:
    """Whether what is recommended was never trained to its end."""
    if not advice.complete or advice.recommended.trial >= 0:
        return []
    return [
        "No trial was trained to the end with exactly this learning rate; what is expected of it follows from its "
        "neighbours. The study trains it before it ends, where a trial is left for it (--trials)."
    ]


def busy(trials: Sequence[TrialRecord]) -> list[str]:
    """Whether epochs of one batch size took so different times that the machine must have been busy."""
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    for trial in trials:
        for epoch in trial.epochs:
            if trial.batch_size:
                seconds[trial.batch_size, str(epoch.get("machine", ""))].append(epoch["train_seconds"])
    found = [
        sorted(same)[math.ceil(0.9 * len(same)) - 1] / statistics.median(same)
        for same in seconds.values()
        if len(same) >= BUSY_EPOCHS and statistics.median(same) > 0
    ]
    if not found or statistics.median(found) < BUSY:
        return []
    return [
        f"The machine was busy with other work: one epoch in ten took {statistics.median(found):.1f} times as long as "
        "the median of its batch size, or more. Times are medians, and may be off where a batch size has few epochs."
    ]
