"""What a report and its pictures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchopt.question.space import SearchSpace
from batchopt.report.answer.recommendation import Report
from batchopt.store.history import TrialRecord, as_trial

if TYPE_CHECKING:
    from batchopt.search.surface import Surface


@dataclass(frozen=True)
class Evidence:
    """A report and what it was made from.

    Attributes:
        report: the advice.
        trials: as the machine that is advised has them.
        space: of the study.
    """

    report: Report
    trials: list[TrialRecord]
    space: SearchSpace

    def surface(self) -> Surface | None:
        """The posterior over the grid of batch sizes and rates; None before the first value."""
        # Not at the top: the numerics take a second to load.
        from batchopt.search.surface import surface

        epochs = self.report.goal["epochs"]
        whole = [trial for trial in self.trials if trial.batch_size and trial.learning_rate]
        known = [as_trial(trial, held=False, max_epochs=epochs) for trial in whole]
        return surface(known, self.space, max_epochs=epochs, sign=self.report.metric.sign)
