"""What a report says in tables: what each batch size is worth, and how it trains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchopt.machine.memory import shown_bytes
from batchopt.question.metric import Metric
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.blocks import Row, Table
from batchopt.report.show.goal_view import time_table

if TYPE_CHECKING:
    from batchopt.search.advice import Advice, Estimate


BAR_BLOCKS = 8
"""A bar is full within the tolerance of the best, and loses a block with each doubling of the distance beyond it."""

UNTRIED = "~"
"""Before a rate that no trial had: between those that were tried, the posterior expects it to be best."""

COLUMNS = ("batch size", "best rate", "expected", "90 % interval", "", f"vs {COMMON_BATCH_SIZE}", "time", "s/trial", "")


def worth_table(report: Report) -> Table:
    """What each batch size that was trained is worth."""
    if report.time is not None:
        return time_table(report, report.time)
    return Table(COLUMNS, [(_cells(report, row), _recommended(report, row)) for row in report.by_batch_size])


def worth_notes(report: Report, worth: Table) -> list[str]:
    """What the signs of `worth_table` mean, where they are used."""
    cells = [cell for row, _ in worth.rows for cell in row]
    compared = any(row.gain is not None for row in report.by_batch_size)
    said = (
        [f"vs {COMMON_BATCH_SIZE}: {_difference(report.metric)}; time: relative to batch size {COMMON_BATCH_SIZE}"]
        if compared
        else []
    )
    said += [f"{UNTRIED} interpolated rate, not trained"] if any(c.startswith(UNTRIED) for c in cells) else []
    return ["; ".join(said)] if said else []


def training_table(report: Report) -> Table:
    """How each batch size trains."""
    found = report.to_target
    target = str(report.metric.target(found.target)) if found is not None and found.reached else ""
    names = ["batch size", "examples/s", "memory", "loss gap", "loss spread", "trials", "diverged"]
    names += [f"s to {target}", f"epochs to {target}"] if target else []
    early = {row.batch_size for row in found.reached if row.within_first} if found is not None else set()

    def cells(row: BatchSizeRow) -> list[str]:
        known = row.train_loss is not None and row.validation_loss is not None
        at_most = "<" if row.batch_size in early else ""
        to_target = ["", ""]
        if row.seconds_to_target is not None and row.epochs_to_target is not None:
            to_target = [f"{at_most}{row.seconds_to_target:.3g}", f"{at_most}{row.epochs_to_target:.2g}"]
        return [
            str(row.batch_size),
            f"{row.examples_per_second:,.0f}",
            "" if row.peak_bytes is None else shown_bytes(row.peak_bytes),
            f"{row.validation_loss - row.train_loss:+.3f}" if known else "",  # type: ignore[operator]
            "" if row.loss_spread is None else f"{row.loss_spread:.2g}",
            str(row.trials),
            str(row.diverged or ""),
            *(to_target if target else []),
        ]

    rows: list[Row] = [(cells(row), _recommended(report, row)) for row in report.by_batch_size]
    return Table(names, rows)


def _cells(report: Report, row: BatchSizeRow) -> list[str]:
    advice, metric = report.in_metric, report.metric
    estimate = None if advice is None else advice.at(row.batch_size)
    expected = ["", "", ""]
    if advice is not None and estimate is not None:
        expected = [
            metric.shown(estimate.mean),
            metric.shown_interval(estimate.low, estimate.high),
            bar(estimate, advice),
        ]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    untried = UNTRIED if estimate is not None and estimate.trial < 0 else ""
    return [
        str(row.batch_size),
        f"{untried}{rate:.2g}",
        *expected,
        "" if row.gain is None else metric.shown_change(metric.sign * row.gain),
        "" if row.time_ratio is None else f"{row.time_ratio:.2g}",
        f"{row.seconds_per_epoch * report.goal['epochs'] if estimate is None else estimate.seconds:.3g}",
        _verdict(report, row),
    ]


def _difference(metric: Metric) -> str:
    """What a column of differences has, and which way is better."""
    if metric.is_accuracy:
        return f"{metric.title} difference in points"
    return f"{metric.title} difference ({metric.better} is better)"


def _recommended(report: Report, row: BatchSizeRow) -> bool:
    return report.recommendation is not None and row.batch_size == report.recommendation.batch_size


def _verdict(report: Report, row: BatchSizeRow) -> str:
    if _recommended(report, row):
        return "recommended"
    if row.value is None:
        return "diverged"
    advice = report.advice
    if advice is None or row.batch_size not in advice.as_good:
        return ""
    return "as good, fastest" if row.batch_size == advice.fastest.batch_size else "as good"


def bar(estimate: Estimate, advice: Advice) -> str:
    """How near the best an estimate is, in blocks; see `BAR_BLOCKS`."""
    gap = estimate.gap
    lost = math.log2(max(gap / advice.tolerance, 1.0)) if advice.tolerance > 0 else (BAR_BLOCKS if gap > 0 else 0)
    return "\N{FULL BLOCK}" * max(1, BAR_BLOCKS - math.ceil(lost))
