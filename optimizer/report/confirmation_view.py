"""What was confirmed, on the screen."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from optimizer.report.confirmation import Confirmation, ConfirmedConfiguration, Mean
from optimizer.search.space import COMMON_BATCH_SIZE

COLUMNS = ("confirmed", "batch size", "rate", "runs", "test accuracy", "against", "s/trial", "against", "validation")


def confirmation_view(found: Confirmation) -> list[RenderableType]:
    """A table with a row for each configuration, and what is to be said of it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(COLUMNS):
        heading = f"{name} {found.reference}" if name == "against" else name
        table.add_column(heading, justify="left" if at == 0 else "right", no_wrap=True)
    for row in found.configurations:
        table.add_row(*_cells(row), style="bold" if row.role == "recommended" else "")
    return [table, *(Text(sentence) for sentence in confirmation_sentences(found))]


def confirmation_paragraphs(found: Confirmation | None) -> list[str]:
    """The same in sentences, where there is no room for a table; none before `--confirm`."""
    return [] if found is None else [*map(_said, found.configurations), *confirmation_sentences(found)]


def _said(row: ConfirmedConfiguration) -> str:
    *_, test, more, seconds, longer, _ = _cells(row)
    against = f" ({more} points and {longer} s against the reference)" if more else ""
    what = f"{row.role.capitalize()}, {row.batch_size} x {row.learning_rate:.2g}"
    return f"{what}: {test} test accuracy, {seconds} s of training{against}." if test else f"{what}: all runs diverged."


def confirmation_sentences(found: Confirmation) -> list[str]:
    """How to read it: what the intervals are, how much luck there is, what else is to be known."""
    said = [
        f"Confirmed on the test set, which no trial has seen; \N{PLUS-MINUS SIGN} are 90 % t-intervals over "
        f"{_runs(found)} of each configuration, differences taken run by run."
    ]
    if found.test_spread is not None and found.validation_spread is not None:
        said.append(
            f"From seed to seed, runs of one configuration differ by {100 * found.test_spread:.2g} points of test and "
            f"{100 * found.validation_spread:.2g} of validation accuracy (standard deviations, {found.runs} runs)."
        )
    if found.reference != COMMON_BATCH_SIZE:
        said.append(
            f"Batch size {COMMON_BATCH_SIZE} is not to be had here, so {found.reference} stands for it: the nearest."
        )
    if found.machines > 1:
        said.append(f"They were trained on {found.machines} machines, so that seconds differ for that reason too.")
    if found.recommendations > 1:
        said.append(f"The test set has been opened for {found.recommendations} recommendations of this study.")
    if not found.current:
        said.append(f"This is not what is recommended now, but was after {found.trials} trials; --confirm confirms it.")
    return said


def _runs(found: Confirmation) -> str:
    counts = sorted({row.test_accuracy.count for row in found.configurations if row.test_accuracy is not None})
    if not counts:
        return "no run"
    return f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} run{'s'[: counts[0] != 1]}"


def _cells(row: ConfirmedConfiguration) -> list[str]:
    counted = 0 if row.test_accuracy is None else row.test_accuracy.count
    return [
        row.role,
        str(row.batch_size),
        f"{row.learning_rate:.2g}",
        str(counted) + (f" ({row.diverged} diverged)" if row.diverged else ""),
        _percent(row.test_accuracy),
        _shown(row.accuracy_difference, 100, "+.2f", ".2f"),
        _shown(row.train_seconds, 1, ".3g", ".2g"),
        _shown(row.seconds_difference, 1, "+.3g", ".2g"),
        _percent(row.validation_accuracy),
    ]


def _percent(mean: Mean | None) -> str:
    return _shown(mean, 100, ".2f", ".2f", "%")


def _shown(mean: Mean | None, scale: float, how: str, how_far: str, unit: str = "") -> str:
    """A mean and half its interval; empty where there is none."""
    if mean is None:
        return ""
    text = f"{scale * mean.mean:{how}}{unit}"
    return text if mean.high is None else f"{text} \N{PLUS-MINUS SIGN} {scale * (mean.high - mean.mean):{how_far}}"
