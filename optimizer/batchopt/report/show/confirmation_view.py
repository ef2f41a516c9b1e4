"""What was confirmed: a table, and how to read it."""

from __future__ import annotations

from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.confirmation import Confirmation, ConfirmedConfiguration
from batchopt.report.answer.intervals import Mean
from batchopt.report.show.blocks import Table
from batchopt.report.show.goal_view import shown_target


def confirmation_table(found: Confirmation) -> Table:
    """A row for each configuration."""
    return Table(_columns(found), [(_cells(row, found), row.role == "recommended") for row in found.configurations])


def confirmation_sentences(found: Confirmation) -> list[str]:
    """How to read it: what the intervals are, how much two runs differ, what else is to be known."""
    until = "" if found.target is None else f", each trained until {shown_target(found.target)} validation accuracy"
    said = [
        f"Confirmed on the test set, which no trial has seen{until}; \N{PLUS-MINUS SIGN} are 90 % t-intervals over "
        f"{_runs(found)} of each configuration, differences taken run by run."
    ]
    if any(row.missed for row in found.configurations):
        said.append("Runs that never reached the target are excluded, so the true time is longer than shown.")
    # Where all stop at one accuracy, how they differ in it says little.
    if found.target is None and found.test_spread is not None and found.validation_spread is not None:
        said.append(
            f"From seed to seed, runs of one configuration differ by {100 * found.test_spread:.2g} points of test and "
            f"{100 * found.validation_spread:.2g} of validation accuracy (standard deviations, {found.runs} runs)."
        )
    if found.reference != COMMON_BATCH_SIZE:
        said.append(
            f"{COMMON_BATCH_SIZE} is not in this search space; the nearest, {found.reference}, is the reference."
        )
    if found.machines > 1:
        said.append(
            f"These runs were trained on {found.machines} machines, which is one more reason why their times differ."
        )
    if found.recommendations > 1:
        said.append(f"The test set has been opened for {found.recommendations} recommendations of this study.")
    if not found.current:
        said.append(
            f"These results are for an earlier recommendation (after {found.trials} trials); "
            "--confirm confirms the present one."
        )
    return said


def _runs(found: Confirmation) -> str:
    counts = sorted({row.test_accuracy.count for row in found.configurations if row.test_accuracy is not None})
    if not counts:
        return "no run"
    return f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} run{'s'[: counts[0] != 1]}"


def _columns(found: Confirmation) -> tuple[str, ...]:
    against = f"against {found.reference}"
    if found.target is not None:
        seconds = f"s to {shown_target(found.target)}"
        return ("confirmed", "batch size", "rate", "runs", seconds, against, "test accuracy", against)
    return ("confirmed", "batch size", "rate", "runs", "test accuracy", against, "s/trial", against, "validation")


def _cells(row: ConfirmedConfiguration, found: Confirmation) -> list[str]:
    counted = 0 if row.test_accuracy is None else row.test_accuracy.count
    left_out = _left_out(row)
    what = [
        row.role,
        str(row.batch_size),
        f"{row.learning_rate:.2g}",
        f"{counted} ({left_out})" if left_out else str(counted),
    ]
    accuracy = [_percent(row.test_accuracy), _points(row.accuracy_difference)]
    seconds = [_seconds(row.train_seconds), _seconds(row.seconds_difference, "+")]
    if found.target is not None:
        return [*what, *seconds, *accuracy]
    return [*what, *accuracy, *seconds, _percent(row.validation_accuracy)]


def _left_out(row: ConfirmedConfiguration) -> str:
    """The runs that are in no mean; empty where all are."""
    counts = ((row.diverged, "diverged"), (row.missed, "missed the target"))
    return ", ".join(f"{count} {how}" for count, how in counts if count)


def _percent(mean: Mean | None) -> str:
    return _shown(mean, 100, ".2f", ".2f", "%")


def _points(difference: Mean | None) -> str:
    return _shown(difference, 100, "+.2f", ".2f")


def _seconds(mean: Mean | None, sign: str = "") -> str:
    return _shown(mean, 1, f"{sign}.3g", ".2g")


def _shown(mean: Mean | None, scale: float, how: str, how_far: str, unit: str = "") -> str:
    """A mean and half its interval; empty where there is none."""
    if mean is None:
        return ""
    text = f"{scale * mean.mean:{how}}{unit}"
    return text if mean.high is None else f"{text} \N{PLUS-MINUS SIGN} {scale * (mean.high - mean.mean):{how_far}}"
