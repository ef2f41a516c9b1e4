"""What was confirmed: a table, and how to read it."""

from __future__ import annotations

from batchopt.question.metric import Metric
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.confirmation import Confirmation, ConfirmedConfiguration
from batchopt.report.answer.intervals import Mean
from batchopt.report.show.blocks import Table


def confirmation_table(found: Confirmation, metric: Metric) -> Table:
    """A row for each configuration."""
    return Table(
        _columns(found, metric),
        [(_cells(row, found, metric), row.role == "recommended") for row in found.configurations],
    )


def confirmation_sentences(found: Confirmation, metric: Metric) -> list[str]:
    """How to read it: what the intervals are, how much two runs differ, what else is to be known."""
    target = metric.target(found.target)
    until = "" if target is None else f", each trained until {target} validation {metric.title}"
    said = [
        f"Confirmed on the test set, which no trial has seen{until}; \N{PLUS-MINUS SIGN} are 90 % t-intervals over "
        f"{_runs(found)} of each configuration, differences taken run by run."
    ]
    if any(row.missed for row in found.configurations):
        said.append("Runs that never reached the target are excluded, so the true time is longer than shown.")
    # Where all stop at one value, how they differ in it says little.
    if found.target is None and found.test_spread is not None and found.validation_spread is not None:
        spreads = [metric.shown_amount(spread) for spread in (found.test_spread, found.validation_spread)]
        said.append(
            f"From seed to seed, runs of one configuration differ by {spreads[0]} of test and {spreads[1]} of "
            f"validation {metric.title} (standard deviations, {found.runs} runs)."
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
    counts = sorted({row.test_value.count for row in found.configurations if row.test_value is not None})
    if not counts:
        return "no run"
    return f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} run{'s'[: counts[0] != 1]}"


def _columns(found: Confirmation, metric: Metric) -> tuple[str, ...]:
    against = f"against {found.reference}"
    if found.target is not None:
        seconds = f"s to {metric.target(found.target)}"
        return ("confirmed", "batch size", "rate", "runs", seconds, against, f"test {metric.title}", against)
    return (
        "confirmed",
        "batch size",
        "rate",
        "runs",
        f"test {metric.title}",
        against,
        "s/trial",
        against,
        "validation",
    )


def _cells(row: ConfirmedConfiguration, found: Confirmation, metric: Metric) -> list[str]:
    counted = 0 if row.test_value is None else row.test_value.count
    left_out = _left_out(row)
    what = [
        row.role,
        str(row.batch_size),
        f"{row.learning_rate:.2g}",
        f"{counted} ({left_out})" if left_out else str(counted),
    ]
    values = [_value(row.test_value, metric), _change(row.value_difference, metric)]
    seconds = [_seconds(row.train_seconds), _seconds(row.seconds_difference, "+")]
    if found.target is not None:
        return [*what, *seconds, *values]
    return [*what, *values, *seconds, _value(row.validation_value, metric)]


def _left_out(row: ConfirmedConfiguration) -> str:
    """The runs that are in no mean; empty where all are."""
    counts = ((row.diverged, "diverged"), (row.missed, "missed the target"))
    return ", ".join(f"{count} {how}" for count, how in counts if count)


def _value(mean: Mean | None, metric: Metric) -> str:
    return _shown(mean, 100, ".2f", ".2f", "%") if metric.is_accuracy else _shown(mean, 1, ".4g", ".2g")


def _change(difference: Mean | None, metric: Metric) -> str:
    return _shown(difference, 100, "+.2f", ".2f") if metric.is_accuracy else _shown(difference, 1, "+.2g", ".2g")


def _seconds(mean: Mean | None, sign: str = "") -> str:
    return _shown(mean, 1, f"{sign}.3g", ".2g")


def _shown(mean: Mean | None, scale: float, how: str, how_far: str, unit: str = "") -> str:
    """A mean and half its interval; empty where there is none."""
    if mean is None:
        return ""
    text = f"{scale * mean.mean:{how}}{unit}"
    return text if mean.high is None else f"{text} \N{PLUS-MINUS SIGN} {scale * (mean.high - mean.mean):{how_far}}"
