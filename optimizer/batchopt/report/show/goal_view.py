"""Tables of goals to a target, and of the goal `pareto`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchopt.question.goal import Goal
from batchopt.report.answer.goals import targeted
from batchopt.report.show.advice_view import verdict
from batchopt.report.show.blocks import Row, Table
from batchopt.words import Unit, duration

if TYPE_CHECKING:
    from batchopt.report.answer.batch_sizes import BatchSizeRow
    from batchopt.report.answer.goals import TargetAnswer
    from batchopt.report.answer.recommendation import Report
    from batchopt.search.advice import Estimate


def target_table(report: Report, answer: TargetAnswer, rows: Sequence[BatchSizeRow]) -> Table:
    """What it costs each of these batch sizes to get to the target."""
    goal, advice = targeted(Goal(**report.goal), report.metric), report.advice
    assert goal is not None
    there = [] if advice is None else [each for row in rows if (each := advice.at(row.batch_size)) is not None]
    unit = goal.unit(statistics.median(each.mean for each in there) if there else 0.0)
    names = ("batch size", "learning rate", goal.heading(unit), "90 % interval", "verdict")
    return Table(names, [_target_row(row, report, answer, unit) for row in rows])


def _target_row(row: BatchSizeRow, report: Report, answer: TargetAnswer, unit: Unit) -> Row:
    advice, epochs = report.advice, report.goal["epochs"]
    estimate = None if advice is None else advice.at(row.batch_size)
    ours = estimate is not None and advice is not None and estimate is advice.recommended
    if row.batch_size not in answer.reached and not ours:
        said = "diverged" if row.value is None else f"not reached; {report.metric.shown(row.value)}"
    else:
        said = "" if estimate is None else verdict(report, estimate)
    expected = ["", ""]
    if estimate is not None:
        # Beyond a whole trial there is nothing but extrapolation.
        price = estimate.mean / estimate.seconds if estimate.seconds > 0 else 1.0
        most = row.seconds_per_epoch * epochs * price
        expected = [at_most(estimate.mean, most, unit), span(estimate, most, unit)]
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


def span(row: Estimate, most: float, unit: Unit) -> str:
    """An interval of costs, up to so much."""
    return (
        f"{at_most(row.low, most, unit)} to {at_most(row.high, most, unit)}"
        if row.low < most
        else at_most(row.low, most, unit)
    )


def at_most(cost: float, most: float, unit: Unit) -> str:
    """A cost; `over` so much."""
    return f"over {unit.of(most)}" if cost > most else unit.of(cost)
