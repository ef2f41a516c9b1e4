"""What a document is made of. A printer knows these and nothing of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Row = tuple[list[str], bool]
"""The cells of a row, and whether it is the recommended one."""


@dataclass(frozen=True)
class Mark:
    """An interval with its middle, on a scale that all rows of a table share; all in 0 to 1.

    Attributes:
        low, middle, high: of the interval.
        band: from where to where is as good as the best.
    """

    low: float
    middle: float
    high: float
    band: tuple[float, float]


@dataclass(frozen=True)
class Paragraph:
    """A sentence, or a few that belong together.

    Attributes:
        text: plain, whatever characters it has.
        role: `advice`, what is recommended; `under`, what is to be known with it; `heading`, of the table below;
            `small`, what can be skipped.
    """

    text: str
    role: Literal["", "advice", "under", "heading", "small"] = ""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown.

    Attributes:
        columns: their names; empty for a column of words.
        rows: of as many cells.
        marks: one for each row, or none at all; a printer that can draws them after the cells.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    marks: Sequence[Mark | None] = ()


Section = Sequence[Paragraph | Table]
"""Blocks that belong together; a printer leaves room between two sections."""


def paragraphs(sentences: Sequence[str]) -> list[Paragraph]:
    """A paragraph for each sentence."""
    return [Paragraph(sentence) for sentence in sentences]
