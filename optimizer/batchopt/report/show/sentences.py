"""A report as one screen: the advice in two sentences, what each batch size is worth, and what to keep in mind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchopt.machine.memory import shown_bytes
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.confirmation_view import confirmation_view
from batchopt.report.show.goal_view import FRONT_COLUMNS, front_cells, time_alternatives, time_cells, time_headline
from batchopt.report.show.law_view import (
    fastest_sentences,
    memory_sentences,
    noise_sentences,
    step_time_sentences,
    steps_sentences,
)
from batchopt.report.show.live import counted, extra_words, seconds
from batchopt.text import printable

if TYPE_CHECKING:
    from batchopt.search.advice import Advice, Estimate


BAR_BLOCKS = 8
"""A bar is full within the tolerance of the best, and loses a block with each doubling of the distance beyond it."""

UNTRIED = "~"
"""Before a rate that no trial had: between those that were tried, the posterior expects it to be best."""


def report_view(report: Report) -> RenderableType:
    """The report as one screen."""
    lines: list[RenderableType] = [Text(headline(report), style="bold")]
    lines += [Text(sentence) for sentence in alternatives(report)]
    if report.by_batch_size:
        lines += ["", table(*table_cells(report))]
        lines += [Text(sentence, style="dim") for sentence in table_notes(report)]
        lines += ["", table(*training_cells(report))]
    if report.front:
        lines += ["", Text("No other batch size is both faster and as accurate:")]
        lines += [table(FRONT_COLUMNS, front_cells(report))]
    laws = [Text(sentence) for sentence in (*target_sentences(report), *machine_sentences(report))]
    lines += ["", *laws] if laws else []
    caveats = [Text(sentence) for sentence in (*doubts(report), *report.notes)]
    lines += ["", *caveats] if caveats else []
    if report.confirmation is not None:
        lines += ["", *confirmation_view(report.confirmation)]
    if report.machines or report.elsewhere:
        lines += ["", Text("\n".join(machine_lines(report)))]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.trials.items())) or "none"
    lines += ["", Text(f"study {printable(report.study)} in {report.storage}; trials: {counts}", style="dim")]
    return Group(*lines)


def machine_lines(report: Report) -> list[str]:
    """What is best on each machine of a study, the one that the report is for marked."""
    lines = []
    if report.elsewhere:
        lines.append(
            f"Seconds and memory are those of {printable(report.machine['device'])}: this machine is not in the study. "
            "`batchopt probe` with the study's script, --storage and --study adds it."
        )
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
        lines.append(f"{here} best on {machine.name} ({printable(machine.fingerprint)}): {best}{cost}{faster}{fits}")
    return lines


def headline(report: Report) -> str:
    """The advice in one sentence."""
    if report.time is not None:
        return time_headline(report.time, report.goal["epochs"])
    best = report.recommendation
    if best is None:
        return f"Study {printable(report.study)} has no complete trial yet, so there is nothing to recommend."
    extra = extra_words(best.extra)
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
    if not tellable:
        said.append("They differ by so little that no reasonable number of runs would tell.")
    else:
        row = max(tellable, key=lambda row: row.chance)
        assert row.runs is not None and row.seconds is not None
        said.append(
            f"{counted(row.runs, 'more run')} each of it and of {row.batch_size} would tell these two apart, "
            f"{seconds(row.seconds)} of training."
        )
    return said


def target_sentences(report: Report) -> list[str]:
    """How soon the target was reached, what the steps to it follow, and how noisy gradients are beside that."""
    law = report.to_target.law if report.to_target is not None else None
    noise = noise_sentences(report.gradient_noise, None if law is None else law.critical_batch_size)
    return [*_soonest(report), *noise]


def _soonest(report: Report) -> list[str]:
    found = report.to_target
    if found is None or (report.time is not None and report.time.advice is None):
        return []
    if not found.reached:
        nearest = "" if found.nearest is None else f"; the nearest came to {found.nearest:.2%}"
        return [f"No trial reached {found.target:.1%}{nearest}."]
    soonest = min(found.reached, key=lambda row: row.seconds)
    when = f"{seconds(soonest.seconds)} of training, {soonest.epochs:.2g} epochs"
    if soonest.within_first:
        when = f"within the first epoch, at most {seconds(soonest.seconds)} of training"
    said = [
        f"Soonest at {found.target:.1%}: batch size {soonest.batch_size} with learning rate "
        f"{soonest.learning_rate:.2g}, {when}."
    ]
    return [*said, *steps_sentences(found), *fastest_sentences(report)]


def machine_sentences(report: Report) -> list[str]:
    """What is known of the machine: what fits, what a step costs."""
    return [*memory_sentences(report), *step_time_sentences(report)]


Row = tuple[list[str], bool]
"""The cells of a row, and whether it is the recommended batch size's."""

COLUMNS = ("batch size", "best rate", "expected", "90 % interval", "", "vs 32", "time", "s/trial", "")


def table(names: Sequence[str], rows: Sequence[Row]) -> Table:
    """A table for the terminal; the recommended row is marked."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        found.add_column(name, justify="right" if name else "left", no_wrap=True)
    for cells, marked in rows:
        found.add_row(*(Text(cell) for cell in cells), style="bold green" if marked else "")
    return found


def table_cells(report: Report) -> tuple[Sequence[str], list[Row]]:
    """What each batch size that was trained is worth: the names of the columns, and the rows."""
    if report.time is not None:
        return time_cells(report, report.time)
    return COLUMNS, [(_cells(report, row), _recommended(report, row)) for row in report.by_batch_size]


def table_notes(report: Report) -> list[str]:
    """What the first table's signs mean, where they are used."""
    cells = [cell for row, _ in table_cells(report)[1] for cell in row]
    compared = any(row.points_gained is not None for row in report.by_batch_size)
    said = [f"vs {COMMON_BATCH_SIZE}: points of accuracy, and parts of its time"] if compared else []
    said += [f"{UNTRIED} a rate between those that were trained"] if any(c.startswith(UNTRIED) for c in cells) else []
    return ["; ".join(said)] if said else []


def training_cells(report: Report) -> tuple[Sequence[str], list[Row]]:
    """How each batch size trains: the names of the columns, and the rows."""
    found = report.to_target
    target = f"{found.target:.1%}" if found is not None and found.reached else ""
    names = ["batch size", "examples/s", "memory", "loss gap", "loss spread", "trials", "diverged"]
    names += [f"s to {target}", "epochs"] if target else []
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

    return names, [(cells(row), _recommended(report, row)) for row in report.by_batch_size]


def _cells(report: Report, row: BatchSizeRow) -> list[str]:
    advice = report.advice
    estimate = None if advice is None else advice.at(row.batch_size)
    expected = ["", "", ""]
    if advice is not None and estimate is not None:
        expected = [f"{estimate.mean:.2%}", interval(estimate.low, estimate.high), bar(estimate, advice)]
    rate = row.learning_rate if estimate is None else estimate.learning_rate
    untried = UNTRIED if estimate is not None and estimate.trial < 0 else ""
    return [
        str(row.batch_size),
        f"{untried}{rate:.2g}",
        *expected,
        "" if row.points_gained is None else f"{100 * row.points_gained:+.2f}",
        "" if row.time_ratio is None else f"{row.time_ratio:.2g}",
        f"{row.seconds_per_epoch * report.goal['epochs']:.3g}",
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
    gap = estimate.behind
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
