"""A report that shows itself: as text where it is printed, as a page where a notebook shows it, as pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import StringIO
from typing import TYPE_CHECKING

from batchopt.question.goal import GoalKind, Prefer
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.reading import read_evidence
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.console import TextConsole
from batchopt.report.show.document import document
from batchopt.report.show.terminal import printed

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 110
"""Columns of the text."""


@dataclass(frozen=True)
class StudyReport(Report):
    """All that is said of a study: print it, or let a notebook show it; `figures` draws it, `describe` is its JSON."""

    @classmethod
    def of(cls, evidence: Evidence) -> StudyReport:
        """The report of what a study has found."""
        made = cls(**{field.name: getattr(evidence.report, field.name) for field in fields(Report)})
        # No field: it is what the report was made from, and no part of its JSON.
        object.__setattr__(made, "_evidence", evidence)
        return made

    def __str__(self) -> str:
        console = TextConsole(file=StringIO(), width=WIDTH)
        console.print(printed(document(self, details=False)))
        assert isinstance(console.file, StringIO)
        return console.file.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        """What a notebook shows: the document, without pictures."""
        # Its pictures take a second to load, which this does without.
        from batchopt.report.show.page import fragment

        return fragment(self)

    def figures(self) -> dict[str, go.Figure]:
        """The pictures by name, as Plotly's figures; one whose data are missing is left out."""
        from batchopt.report.show.pictures import pictures

        evidence: Evidence = self.__dict__["_evidence"]
        return pictures(evidence)


def read_report(
    storage: str,
    name: str | None = None,
    on: str | None = None,
    *,
    tolerance: float | None = None,
    target: float | None = None,
    goal: GoalKind | None = None,
    prefer: Prefer | None = None,
    energy_weight: float | None = None,
) -> StudyReport:
    """What a study has found, for one of its machines; arguments and errors as `read_evidence`."""
    return StudyReport.of(
        read_evidence(
            storage,
            name,
            on,
            tolerance=tolerance,
            target=target,
            goal=goal,
            prefer=prefer,
            energy_weight=energy_weight,
        )
    )
