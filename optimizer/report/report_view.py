"""A report as one screen: the advice in two sentences, what each batch size is worth, and what to keep in mind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimizer.report.confirmation_view import confirmation_view
from optimizer.report.goal_view import FRONT_COLUMNS, front_cells, time_alternatives, time_cells, time_headline
from optimizer.report.noise import noise_sentences
from optimizer.report.recommendation import BatchSizeRow, Report
from optimizer.report.screen import counted, seconds
from optimizer.search.space import COMMON_BATCH_SIZE

if TYPE_CHECKING:
    from optimizer.search.advice import Advice, Estimate

BAR_BLOCKS = 8
"""A bar is full within the tolerance of the best, and loses a block with each doubling of the distance beyond it."""


def report_view(report: Report) -> RenderableType:
    """The report as one screen."""
    lines: list[RenderableType] = [Text(headline(report), style="bold")]
    lines += [Text(sentence) for sentence in alternatives(report)]
    if report.by_batch_size:
        lines += ["", batch_size_table(report)]
    if report.front:
        lines += ["", Text("No other batch size is both faster and as accurate:")]
        lines += [_table(FRONT_COLUMNS, front_cells(report))]
    targets = [Text(sentence) for sentence in (*target_sentences(report), *noise_beside_law(report))]
    lines += ["", *targets] if targets else []
    caveats = [Text(sentence) for sentence in doubts(report)]
    lines += ["", *caveats] if caveats else []
    if report.confirmation is not None:
        lines += ["", *confirmation_view(report.confirmation)]
    if report.machines:
        lines += ["", Text("\n".join(machine_lines(report)))]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.trials.items())) or "none"
    lines += ["", Text(f"study {report.study} in {report.storage}; trials: {counts}", style="dim")]
    return Group(*lines)


def machine_lines(report: Report) -> list[str]:
    """What is best on each machine of a study, the one that the report is for marked."""
    lines = []
    for machine in report.machines:
        here = "*" if machine.fingerprint == report.machine.get("fingerprint") else " "
        best = (
            f"{machine.batch_size} x {machine.learning_rate:.2g}"
            if machine.learning_rate is not None
            else "nothing yet"
        )
        cost = "" if machine.train_seconds is None else f", {seconds(machine.train_seconds)} of training"
        fits = "" if machine.max_batch_size is None else f"; holds batch sizes up to {machine.max_batch_size}"
        faster = "" if machine.fastest in (None, machine.batch_size) else f"; as good and fastest: {machine.fastest}"
        lines.append(f"{here} best on {machine.name} ({machine.fingerprint}): {best}{cost}{faster}{fits}")
    return lines


def headline(report: Report) -> str:
    """The advice in one sentence."""
    if report.time is not None:
        return time_headline(report.time, report.goal["epochs"])
    best = report.recommendation
    if best is None:
        return f"Study {report.study} has no complete trial yet, so there is nothing to recommend."
    extra = "".join(f", {name} {value}" for name, value in best.extra.items())
    return (
        f"Use batch size {best.batch_size} with learning rate {best.learning_rate:.2g}{extra}: "
        f"{best.expected_accuracy:.2%} validation accuracy expected after {counted(report.goal['epochs'], 'epoch')} "
        f"({interval(best.low, best.high)}), {seconds(best.train_seconds)} of training."
    )


def alternatives(report: Report) -> list[str]:
    """What else would do: the fastest that is as good, and the common default."""
    if report.time is not None and report.time.advice is not None:
        return time_alternatives(report.time.advice)
    advice = report.advice
    if report.recommendation is None or advice is None:
        return []
    best, fastest = advice.best, advice.fastest
    within = f"within {points(advice.tolerance)} points"
    said = [f"No faster batch size is as good {within}."]
    if fastest.batch_size != best.batch_size:
        said = [
            f"As good {within} and faster: {fastest.batch_size} with learning rate {fastest.learning_rate:.2g}, "
            f"{ratio(fastest.seconds, best.seconds)} of the time."
        ]
    default = advice.at(COMMON_BATCH_SIZE)
    if default is not None and default.batch_size != best.batch_size:
        said.append(
            f"Against the common {default.batch_size} at its own best rate, {default.learning_rate:.2g}: "
            f"{100 * (best.mean - default.mean):+.2f} points, {ratio(best.seconds, default.seconds)} of the time."
        )
    return said


def doubts(report: Report) -> list[str]:
    """What the data cannot tell, and what would."""
    advice = report.advice
    if report.recommendation is None or advice is None or not advice.undecided:
        return []
    sizes = ", ".join(str(row.batch_size) for row in advice.undecided)
    said = [
        f"The data cannot tell it from {sizes}; runs differ by {points(advice.run_sd)} points (standard deviation)."
    ]
    tellable = [row for row in advice.undecided if row.runs is not None]
    if tellable:
        row = max(tellable, key=lambda row: row.chance)
        assert row.runs is not None and row.seconds is not None
        said.append(
            f"{counted(row.runs, 'more run')} each of it and of {row.batch_size} would, "
            f"{seconds(row.seconds)} of training."
        )
    return said


def target_sentences(report: Report) -> list[str]:
    """How soon the target was reached, and what the steps to it follow."""
    found = report.to_target
    if found is None or (report.time is not None and report.time.advice is None):
        return []
    if not found.reached:
        nearest = "" if found.nearest is None else f"; the nearest came to {found.nearest:.2%}"
        return [f"No trial reached {found.target:.1%}{nearest}."]
    soonest = min(found.reached, key=lambda row: row.seconds)
    said = [
        f"Soonest at {found.target:.1%}: batch size {soonest.batch_size} with learning rate "
        f"{soonest.learning_rate:.2g}, {seconds(soonest.seconds)} of training, {soonest.epochs:.2g} epochs."
    ]
    law = found.law
    if law is None:
        return [*said, "Too few batch sizes got there, or their steps do not level off, to fit the law of steps."]
    if not law.followed:
        return [*said, f"The steps to it do not follow the law of steps: one batch size is off by {law.worst:.0%}."]
    return [
        *said,
        f"The steps to it fall as {law.min_steps:.3g} (1 + {law.critical_batch_size:.3g} / batch size); the critical "
        f"batch size is {law.low:.3g} to {law.high:.3g} as any one measurement is left out.",
    ]


def noise_beside_law(report: Report) -> list[str]:
    """The gradient noise scale, beside the critical batch size of the law of steps."""
    law = report.to_target.law if report.to_target is not None else None
    return noise_sentences(report.gradient_noise, None if law is None else law.critical_batch_size)


COLUMNS = ("batch size", "best rate", "expected", "90 % interval", "", "s/trial", "examples/s", "trials", "")


def batch_size_table(report: Report) -> Table:
    """A row for each batch size that was trained; the recommended one is marked."""
    return _table(*table_cells(report))


def _table(names: Sequence[str], rows: Sequence[tuple[list[str], bool]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for cells, marked in rows:
        table.add_row(*cells, style="bold green" if marked else "")
    return table


def table_cells(report: Report) -> tuple[Sequence[str], list[tuple[list[str], bool]]]:
    """The names of the columns, and the rows: their cells, and whether it is the recommended one."""
    if report.time is not None:
        return time_cells(report, report.time)
    return COLUMNS, [(_cells(report, row), _recommended(report, row)) for row in report.by_batch_size]


def _cells(report: Report, row: BatchSizeRow) -> list[str]:
    advice = report.advice
    estimate = None if advice is None else advice.at(row.batch_size)
    expected = ["", "", ""]
    if advice is not None and estimate is not None:
        expected = [f"{estimate.mean:.2%}", interval(estimate.low, estimate.high), bar(estimate, advice)]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    return [
        str(row.batch_size),
        f"{rate:.2g}",
        *expected,
        f"{row.seconds_per_epoch * report.goal['epochs']:.3g}",
        f"{row.examples_per_second:,.0f}",
        str(row.trials),
        _verdict(report, row),
    ]


def _recommended(report: Report, row: BatchSizeRow) -> bool:
    return report.recommendation is not None and row.batch_size == report.recommendation.batch_size


def _verdict(report: Report, row: BatchSizeRow) -> str:
    if _recommended(report, row):
        return "recommended"
    if row.validation_accuracy is None:
        return "diverged"
    advice = report.advice
    if advice is None or row.batch_size not in advice.as_good:
        return ""
    return "as good, fastest" if row.batch_size == advice.fastest.batch_size else "as good"


def bar(estimate: Estimate, advice: Advice) -> str:
    """How near the best an estimate is, in blocks; see `BAR_BLOCKS`."""
    gap = abs(advice.best.mean - estimate.mean)
    lost = math.log2(max(gap / advice.tolerance, 1.0)) if advice.tolerance > 0 else (BAR_BLOCKS if gap > 0 else 0)
    return "\N{FULL BLOCK}" * max(1, BAR_BLOCKS - math.ceil(lost))


def interval(low: float, high: float) -> str:
    """An interval of accuracies."""
    return f"{100 * low:.2f} to {high:.2%}"


def points(accuracy: float) -> str:
    """A difference of accuracies, in percentage points."""
    return f"{100 * accuracy:.2g}"


def ratio(a: float, b: float) -> str:
    """How much a is of b, for reading: `0.45`."""
    return f"{a / b:.2g}" if b > 0 else "-"
