"""Documents and tables as the terminal prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from batchopt.question.goal import Counts
from batchopt.question.metric import Metric
from batchopt.report.answer.batch_sizes import counted_epoch
from batchopt.report.show.blocks import Paragraph, Section, Table
from batchopt.store.attributes import DIVERGED
from batchopt.store.history import TrialRecord
from batchopt.text import first_line
from batchopt.words import shown_energy

LAST_TRIALS = 8
"""Rows of the live view: enough to see a pattern, few enough for a small terminal."""


MOST_SHOWN = 1e5
"""A loss from here on diverges, and its digits say nothing."""

STYLES = {"advice": "bold", "small": "dim"}
"""By a paragraph's role; the others are plain."""


def printed(sections: Sequence[Section]) -> RenderableType:
    """A document, with an empty line between two sections."""
    lines: list[RenderableType] = []
    for section in sections:
        lines += [""] if lines else []
        lines += [_block(block) for block in section]
    return Trimmed(Group(*lines))


class Trimmed:
    """What is printed without blanks at the ends of its lines, which whoever copies it would carry along."""

    def __init__(self, printed: RenderableType) -> None:
        self._printed = printed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._printed, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
            yield from (*line, Segment.line())


def _block(block: Paragraph | Table) -> RenderableType:
    if isinstance(block, Paragraph):
        text = Text(block.text, style=STYLES.get(block.role, ""))
        return Padding(text, (0, 0, 0, 2), expand=False) if block.role == "under" else text
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(block.columns):
        words = not name or any(cells[at][:1].isalpha() for cells, _ in block.rows)
        # Where a line has no room for a cell it goes on below: a digit that is cut is a wrong number.
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for cells, marked in block.rows:
        table.add_row(*map(Text, cells), style="bold green" if marked else "")
    return table


def trials_table(trials: list[TrialRecord], metric: Metric, counts: Counts = "last") -> RichTable:
    """A row for each trial, with the values of its study's metric at the epoch that it counts by."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    drawn = any(trial.joules is not None for trial in trials)
    # A job tells the metric alone, which may be the loss.
    with_loss = metric.title != "loss" and any(row.get("validation_loss") for trial in trials for row in trial.epochs)
    names = ["trial", "state", "batch size", "learning rate", metric.title, *(["loss"] if with_loss else [])]
    names += ["epochs", "train s"]
    for name in [*names, *(["energy"] if drawn else []), "note"]:
        justify: Literal["left", "right"] = "left" if name in ("state", "note") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "note")
    for trial in trials:
        counted = counted_epoch(trial, metric, counts)
        value, loss = counted.get("value"), counted.get("validation_loss")
        table.add_row(
            str(trial.number),
            trial.state,
            "" if trial.batch_size is None else str(trial.batch_size),
            "" if trial.learning_rate is None else f"{trial.learning_rate:.3g}",
            "" if value is None or trial.note == DIVERGED else metric.shown(value),
            *(
                ["" if loss is None else f"{loss:.4f}" if abs(loss) < MOST_SHOWN else f"{loss:.3g}"]
                if with_loss
                else []
            ),
            str(len(trial.epochs)),
            f"{trial.train_seconds:.2f}",
            *(["" if trial.joules is None else shown_energy(trial.joules)] if drawn else []),
            # Anybody may have written it.
            Text(first_line(trial.note)),
        )
    return table
