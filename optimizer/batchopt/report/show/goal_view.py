"""The goals `time` and `pareto` in words: sentences and table cells, for the screen, the page and the note."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.show.blocks import Row, Table
from batchopt.words import compared, counted, extra_words, listed

if TYPE_CHECKING:
    from batchopt.report.answer.batch_sizes import BatchSizeRow
    from batchopt.report.answer.goals import TimeAnswer
    from batchopt.report.answer.recommendation import Report
    from batchopt.search.advice import Advice, Estimate


FRONT_COLUMNS = ("batch size", "rate", "accuracy", "90 % interval", "s/trial")


def time_headline(answer: TimeAnswer, epochs: int) -> str:
    """The advice in one sentence; where nobody reached the target, how near the study came."""
    target, nearest = shown_target(answer.target), answer.nearest
    if answer.advice is not None:
        best = answer.advice.best
        extra = extra_words(best.extra)
        return (
            f"Use batch size {best.batch_size} with learning rate {best.learning_rate:.2g}{extra}: {target} validation "
            f"accuracy expected after {amount(best.mean)} s of training ({span(best)} s)."
        )
    if nearest is None:
        return f"No trial has been trained for an epoch yet, so nothing is known of {target}."
    said = f"No trial reached {target} validation accuracy within {counted(epochs, 'epoch')}: nothing to recommend. "
    said += (
        f"The nearest came to {nearest.accuracy:.2%}: batch size {nearest.batch_size} with learning rate "
        f"{nearest.learning_rate:.2g}, after {counted(nearest.epochs, 'epoch')}"
    )
    return said + (
        "; accuracy was still rising, more epochs may reach it." if nearest.rising else "; accuracy had plateaued."
    )


def time_alternatives(advice: Advice) -> list[str]:
    """What else would do, and what the common default takes."""
    best, default = advice.best, advice.at(COMMON_BATCH_SIZE)
    others = [str(size) for size in advice.as_good if size != best.batch_size]
    within = f"within {amount(advice.tolerance)} s of the fastest"
    said = [f"Also {within}: {listed(others)}." if others else f"No other batch size is {within}."]
    if default is not None and default.batch_size != best.batch_size:
        said.append(
            f"Against the common {default.batch_size} at its own best rate, {default.learning_rate:.2g}: "
            f"{compared(best.mean, default.mean)}."
        )
    return said


def time_table(report: Report, answer: TimeAnswer) -> Table:
    """How soon each batch size reaches the target."""
    names = ("batch size", "best rate", f"s to {shown_target(answer.target)}", "90 % interval", "s/epoch", "trials", "")
    return Table(names, [_time_row(row, answer, report.goal["epochs"]) for row in report.by_batch_size])


def _time_row(row: BatchSizeRow, answer: TimeAnswer, epochs: int) -> Row:
    advice = answer.advice
    estimate = None if advice is None else advice.at(row.batch_size)
    marked = advice is not None and row.batch_size == advice.best.batch_size
    verdict = "recommended" if marked else ""
    if row.batch_size not in answer.reached:
        verdict = "diverged" if row.validation_accuracy is None else f"not reached; {row.validation_accuracy:.2%}"
    elif advice is not None and not marked and row.batch_size in advice.as_good:
        verdict = "as good"
    # Beyond a whole trial there is nothing but extrapolation.
    most = row.seconds_per_epoch * epochs
    expected = ["", ""] if estimate is None else [amount(estimate.mean, most), span(estimate, most)]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    cells = [str(row.batch_size), f"{rate:.2g}", *expected, f"{row.seconds_per_epoch:.3g}", str(row.trials), verdict]
    return cells, marked


def front_table(report: Report) -> Table:
    """The front of accuracy against time, fastest first."""
    best = report.recommendation
    rows: list[Row] = [
        (
            [
                str(row.batch_size),
                f"{row.learning_rate:.2g}",
                f"{row.mean:.2%}",
                f"{100 * row.low:.2f} to {row.high:.2%}",
                f"{row.seconds:.3g}",
            ],
            best is not None and row.batch_size == best.batch_size,
        )
        for row in report.front
    ]
    return Table(FRONT_COLUMNS, rows)


def shown_target(target: float) -> str:
    """A target as users write it: `97%`."""
    return f"{100 * target:.4g}%"


def span(row: Estimate, most: float = math.inf) -> str:
    """An interval of seconds, up to so many."""
    return f"{amount(row.low, most)} to {amount(row.high, most)}" if row.low < most else amount(row.low, most)


def amount(number: float, most: float = math.inf) -> str:
    """Seconds, which may be very few, or very many; `over` so many."""
    if number > most:
        return f"over {amount(most)}"
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
