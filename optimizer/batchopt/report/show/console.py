"""The terminal: what is printed there is text, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from batchopt.text import printable


class TextConsole(Console):
    """A console on which names and notes of a database are neither markup nor commands to the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Those with `control` are Rich's own.
            yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))
