"""Tables of the goals `time` and `pareto`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchopt.report.show.advice_view import verdict
from batchopt.report.show.blocks import Row, Table
from batchopt.words import duration

if TYPE_CHECKING:
    from batchopt.report.answer.batch_sizes import BatchSizeRow
    from batchopt.report.answer.goals import TimeAnswer
    from batchopt.report.answer.recommendation import Recommendation, Report
    from batchopt.search.advice import Estimate


def time_table(report: Report, answer: TimeAnswer, rows: Sequence[BatchSizeRow]) -> Table:
    """How soon each of these batch sizes reaches the target."""
    names = ("batch size", "learning rate", f"s to {report.target}", "90 % interval", "verdict")
    return Table(names, [_time_row(row, report, answer) for row in rows])


def _time_row(row: BatchSizeRow, report: Report, answer: TimeAnswer) -> Row:
    advice, epochs = report.advice, report.goal["epochs"]
    estimate = None if advice is None else advice.at(row.batch_size)
    ours = estimate is not None and advice is not None and estimate is advice.recommended
    if row.batch_size not in answer.reached and not ours:
        said = "diverged" if row.value is None else f"not reached; {report.metric.shown(row.value)}"
    else:
        said = "" if estimate is None else verdict(report, estimate)
    # Beyond a whole trial there is nothing but extrapolation.
    most = row.seconds_per_epoch * epochs
    expected = ["", ""] if estimate is None else [amount(estimate.mean, most), span(estimate, most)]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    return [str(row.batch_size), f"{rate:.2g}", *expected, said], ours


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
                duration(row.seconds),
            ],
            best is not None and row.batch_size == best.batch_size,
        )
        for row in report.front
    ]
    return Table(("batch size", "learning rate", "expected", "90 % interval", "time"), rows)


def span(row: Estimate | Recommendation, most: float = math.inf) -> str:
    """An interval of seconds, up to so many."""
    return f"{amount(row.low, most)} to {amount(row.high, most)}" if row.low < most else amount(row.low, most)


def amount(number: float, most: float = math.inf) -> str:
    """Seconds, which may be very few, or very many; `over` so many."""
    if number > most:
        return f"over {amount(most)}"
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
