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
    from batchopt.report.answer.recommendation import Recommendation, Report
    from batchopt.search.advice import Advice, Estimate


def time_headline(report: Report, answer: TimeAnswer) -> str:
    """The advice in one sentence; where nobody reached the target, how near the study came."""
    metric, nearest, best = report.metric, answer.nearest, report.recommendation
    target, epochs = str(report.target), report.goal["epochs"]
    if best is not None:
        extra = extra_words(best.extra)
        return (
            f"Use batch size {best.batch_size} with learning rate {best.learning_rate:.2g}{extra}: {target} validation "
            f"{metric.title} expected after {amount(best.expected)} s of training ({span(best)} s)."
        )
    if nearest is None:
        return f"No trial has been trained for an epoch yet, so nothing is known of {target}."
    within = f"{target} validation {metric.title} within {counted(epochs, 'epoch')}"
    said = (
        f"No trial reached {within}: nothing to recommend. The nearest came to {metric.shown(nearest.value)}: batch "
        f"size {nearest.batch_size} with learning rate {nearest.learning_rate:.2g}, after "
        f"{counted(nearest.epochs, 'epoch')}"
    )
    return said + (
        f"; {metric.title} was still improving, more epochs may reach it."
        if nearest.rising
        else f"; {metric.title} had plateaued."
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
    names = ("batch size", "best rate", f"s to {report.target}", "90 % interval", "s/epoch", "trials", "")
    return Table(names, [_time_row(row, report, answer) for row in report.by_batch_size])


def _time_row(row: BatchSizeRow, report: Report, answer: TimeAnswer) -> Row:
    advice, epochs = report.advice, report.goal["epochs"]
    estimate = None if advice is None else advice.at(row.batch_size)
    marked = advice is not None and row.batch_size == advice.best.batch_size
    verdict = "recommended" if marked else ""
    if row.batch_size not in answer.reached:
        verdict = "diverged" if row.value is None else f"not reached; {report.metric.shown(row.value)}"
    elif advice is not None and not marked and row.batch_size in advice.as_good:
        verdict = "as good"
    # Beyond a whole trial there is nothing but extrapolation.
    most = row.seconds_per_epoch * epochs
    expected = ["", ""] if estimate is None else [amount(estimate.mean, most), span(estimate, most)]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    cells = [str(row.batch_size), f"{rate:.2g}", *expected, f"{row.seconds_per_epoch:.3g}", str(row.trials), verdict]
    return cells, marked


def front_table(report: Report) -> Table:
    """The front of the metric against time, fastest first."""
    best, metric = report.recommendation, report.metric
    rows: list[Row] = [
        (
            [
                str(row.batch_size),
                f"{row.learning_rate:.2g}",
                metric.shown(row.mean),
                metric.shown_interval(row.low, row.high),
                f"{row.seconds:.3g}",
            ],
            best is not None and row.batch_size == best.batch_size,
        )
        for row in report.front
    ]
    return Table(("batch size", "rate", metric.title, "90 % interval", "s/trial"), rows)


def span(row: Estimate | Recommendation, most: float = math.inf) -> str:
    """An interval of seconds, up to so many."""
    return f"{amount(row.low, most)} to {amount(row.high, most)}" if row.low < most else amount(row.low, most)


def amount(number: float, most: float = math.inf) -> str:
    """Seconds, which may be very few, or very many; `over` so many."""
    if number > most:
        return f"over {amount(most)}"
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
