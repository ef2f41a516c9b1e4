"""What a report says in tables: what each batch size is worth, what it is beside 32, and how it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from batchopt.machine.memory import shown_bytes
from batchopt.question.metric import Target
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.advice_view import verdict
from batchopt.report.show.blocks import Mark, Row, Table
from batchopt.report.show.goal_view import target_table
from batchopt.words import duration, energy_unit

if TYPE_CHECKING:
    from batchopt.search.advice import Estimate


MOST_ROWS = 14
"""Of the first table: of a range of every whole number thirty may have been tried, and few of them matter."""

UNTRIED = "~"
"""Before a rate that no trial was trained to the end with: between those that were, it is expected to be best."""

COLUMNS = ("batch size", "learning rate", "expected", "90 % interval", "time", "verdict")
"""Of the first table, which fits a terminal of 80 columns."""

SHOWN_TOLERANCES = 12.0
"""Intervals are drawn from so many tolerances below the best; what is worse lies at the end of the scale."""


def answer_table(report: Report) -> Table:
    """What each batch size is worth, what it takes, and what that makes of it."""
    if report.at_target is not None:
        return target_table(report, report.at_target, shown_rows(report))
    rows = shown_rows(report)
    return Table(
        COLUMNS,
        [(_answer_cells(report, row), _recommended(report, row)) for row in rows],
        marks=_marks(report, rows),
    )


def shown_rows(report: Report) -> list[BatchSizeRow]:
    """The rows of the first table: all, or where there are too many, those that matter and some between them."""
    rows, advice = report.by_batch_size, report.advice
    if len(rows) <= MOST_ROWS or advice is None:
        return rows
    wanted = {advice.recommended.batch_size, advice.best.batch_size, advice.fastest.batch_size, COMMON_BATCH_SIZE}
    kept = {at for at, row in enumerate(rows) if row.batch_size in wanted}
    evenly = [round(at * (len(rows) - 1) / (MOST_ROWS - 1)) for at in range(MOST_ROWS)]
    for at in (0, len(rows) - 1, *evenly):
        if len(kept) < MOST_ROWS:
            kept.add(at)
    return [rows[at] for at in sorted(kept)]


def answer_notes(report: Report, table: Table) -> list[str]:
    """What the signs of `answer_table` mean, where they are used, and what it leaves out."""
    said = []
    if any(cell.startswith(UNTRIED) for row, _ in table.rows for cell in row):
        said.append(f"{UNTRIED} interpolated rate, not trained to the end")
    if ending_early(report):
        said.append("time: of one more run, which is expected to end by itself")
    left_out = len(report.by_batch_size) - len(table.rows)
    said += [f"{left_out} more batch sizes with --details"] if left_out > 0 else []
    return ["; ".join(said)] if said else []


def details_table(report: Report) -> Table:
    """What each batch size is beside 32 and beside the recommended one, in numbers."""
    names = (
        "batch size",
        f"vs {COMMON_BATCH_SIZE}",
        f"time vs {COMMON_BATCH_SIZE}",
        "as good",
        "better",
        "s/epoch",
        *(["epochs"] if ending_early(report) else []),
        "trials",
    )
    return Table(names, [(_detail_cells(report, row), _recommended(report, row)) for row in report.by_batch_size])


def details_notes(report: Report) -> list[str]:
    """What the columns of `details_table` are."""
    metric = report.metric
    unit = "in points" if metric.is_accuracy else f"{metric.better} is better"
    said = f"vs {COMMON_BATCH_SIZE}: difference of {metric.title}, {unit}; " if report.at_target is None else ""
    said += "as good: probability to be within the tolerance of the best; better: than the recommended one; "
    epochs = "; epochs: that one more run is expected to take" if ending_early(report) else ""
    return [f"{said}s/epoch: measured, the median{epochs}"]


def training_table(report: Report) -> Table:
    """How each batch size trains."""
    found = report.to_target
    target = str(Target(report.metric, found.target)) if found is not None and found.reached else ""
    drawn = [row.joules for row in report.by_batch_size if row.joules is not None]
    unit = energy_unit(max(drawn, default=0.0))
    names = ["batch size", "examples/s", "memory", *([f"{unit.name}/run"] if drawn else [])]
    names += ["loss gap", "loss spread", "diverged"]
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
            *(["" if row.joules is None else unit.of(row.joules)] if drawn else []),
            f"{row.validation_loss - row.train_loss:+.3f}" if known else "",  # type: ignore[operator]
            "" if row.loss_spread is None else f"{row.loss_spread:.2g}",
            str(row.diverged or ""),
            *(to_target if target else []),
        ]

    rows: list[Row] = [(cells(row), _recommended(report, row)) for row in report.by_batch_size]
    return Table(names, rows)


def _answer_cells(report: Report, row: BatchSizeRow) -> list[str]:
    advice, metric = report.in_metric, report.metric
    estimate = None if advice is None else advice.at(row.batch_size)
    if estimate is None:
        worth = "diverged" if row.value is None else ""
        whole = row.seconds_per_epoch * report.goal["epochs"]
        return [str(row.batch_size), f"{row.learning_rate:.2g}", "", "", duration(whole), worth]
    untried = UNTRIED if estimate.trial < 0 else ""
    return [
        str(row.batch_size),
        f"{untried}{estimate.learning_rate:.2g}",
        metric.shown(estimate.mean),
        metric.shown_interval(estimate.low, estimate.high),
        duration(estimate.seconds),
        "diverged" if row.value is None else verdict(report, estimate),
    ]


def _detail_cells(report: Report, row: BatchSizeRow) -> list[str]:
    advice, metric = report.advice, report.metric
    estimate = None if advice is None else advice.at(row.batch_size)
    ours = _recommended(report, row)
    return [
        str(row.batch_size),
        "" if row.gain is None else metric.shown_change(metric.sign * row.gain),
        "" if row.time_ratio is None else f"{row.time_ratio:.2g}",
        "" if estimate is None else f"{estimate.chance_within:.0%}",
        "" if estimate is None or ours else f"{estimate.chance_better:.0%}",
        f"{row.seconds_per_epoch:.3g}",
        *([("" if estimate is None else f"{estimate.epochs:.2g}")] if ending_early(report) else []),
        str(row.trials),
    ]


def ending_early(report: Report) -> list[Estimate]:
    """The batch sizes of which a run is expected to end by itself before the goal's last epoch."""
    return [row for row in (report.advice.by_batch_size if report.advice else []) if report.ends_early(row)]


def _recommended(report: Report, row: BatchSizeRow) -> bool:
    return report.recommendation is not None and row.batch_size == report.recommendation.batch_size


def _marks(report: Report, rows: Sequence[BatchSizeRow]) -> list[Mark | None]:
    """Intervals on one scale, which ends where nothing is expected, and some tolerances below the best."""
    advice = report.in_metric
    if advice is None or advice.tolerance <= 0:
        return []
    score = report.metric.score
    there = [advice.at(row.batch_size) for row in rows]
    known = [row for row in there if row is not None]
    if not known:
        return []
    best = score(advice.best.mean)
    top = max(max(_ends(row, score)) for row in known)
    bottom = max(min(min(_ends(row, score)) for row in known), best - SHOWN_TOLERANCES * advice.tolerance)
    width = top - bottom

    def at(value: float) -> float:
        return min(max((value - bottom) / width, 0.0), 1.0) if width > 0 else 0.5

    band = (at(best - advice.tolerance), at(best))
    found: list[Mark | None] = []
    for row in there:
        ends = None if row is None else sorted(map(at, _ends(row, score)))
        found.append(None if row is None or ends is None else Mark(ends[0], at(score(row.mean)), ends[1], band))
    return found


def _ends(row: Estimate, score: Callable[[float], float]) -> tuple[float, float]:
    return score(row.low), score(row.high)
