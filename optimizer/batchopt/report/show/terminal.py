"""Tables for the terminal."""

from __future__ import annotations

from typing import Literal

from rich.table import Table
from rich.text import Text

from batchopt.store.attributes import DIVERGED
from batchopt.store.history import TrialRecord
from batchopt.text import first_line

LAST_TRIALS = 8
"""Rows of the live view: enough to see a pattern, few enough for a small terminal."""


def trials_table(trials: list[TrialRecord]) -> Table:
    """A row for each trial."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("trial", "state", "batch size", "learning rate", "accuracy", "loss", "epochs", "train s", "note")
    for name in names:
        justify: Literal["left", "right"] = "left" if name in ("state", "note") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "note")
    for trial in trials:
        accuracy, loss = trial.last.get("validation_accuracy"), trial.last.get("validation_loss")
        table.add_row(
            str(trial.number),
            trial.state,
            "" if trial.batch_size is None else str(trial.batch_size),
            "" if trial.learning_rate is None else f"{trial.learning_rate:.3g}",
            "" if accuracy is None or trial.note == DIVERGED else f"{accuracy:.2%}",
            "" if loss is None else f"{loss:.4f}",
            str(len(trial.epochs)),
            f"{trial.train_seconds:.2f}",
            # Anybody may have written it.
            Text(first_line(trial.note)),
        )
    return table
