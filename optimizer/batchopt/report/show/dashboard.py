"""What optuna-dashboard shows of a study beside its trials: the advice as the study's note, and the pictures."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study

from batchopt.events import Event, Listener, Noted, TrialEnded
from batchopt.goals.kinds import kind_of
from batchopt.optuna_private import figure_attribute
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.reading import read_evidence
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.blocks import Mark, Paragraph, Table
from batchopt.report.show.document import document
from batchopt.report.show.pictures import PICTURES, pictures
from batchopt.signals import Interrupted
from batchopt.store.database import Database
from batchopt.store.ledger import Ledger
from batchopt.store.making import name_values
from batchopt.store.stamp import Stamp
from batchopt.store.study_facts import remove_attributes
from batchopt.text import printable

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


SIGNED = "*Written by batchopt, which brings it up to date. A note without this line is yours, and stays as it is.*"
"""The last line of our notes."""

MARKDOWN = re.compile(r"([\\`*_~<>\[\]|$&])")
"""Letters with which Markdown begins something."""

DOTS = 24
"""Characters of an interval in the note."""

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")

PAUSE_S = 60.0
"""At least so long between two times that a study is shown while it goes on."""

SHARE = 0.02
"""Of a study's time, that showing it may take."""


def show(study: Study, evidence: Evidence, database: Database) -> bool:
    """Write the note and the figures into a study; again, they take the place of the last ones.

    A figure of an earlier time that cannot be drawn now is removed; those that others have made stay.

    Args:
        study: is written to.
        evidence: what is shown.
        database: that the study is in.

    Returns:
        Whether the note was written; not in the place of one that somebody else has written.
    """
    # It brings a web server along, which nothing else needs.
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object

    with warnings.catch_warnings():
        # Their interface may change, as the warning says.
        warnings.simplefilter("ignore", ExperimentalWarning)
        stamp = Stamp.read(study)
        if stamp is not None and study.metric_names is None:
            name_values(study, kind_of(stamp.goal, stamp.metric).value_names)
        before = get_note(study)
        ours = not before.strip() or SIGNED in before
        if ours:
            save_note(study, note(evidence.report))
        drawn = pictures(evidence)
        for name, figure in drawn.items():
            save_plotly_graph_object(study, figure, graph_object_id=_id(name))
        gone = [figure_attribute(_id(name)) for name in PICTURES if name not in drawn]
        remove_attributes(database.db, study, gone)
    return ours


def _id(picture: str) -> str:
    """What optuna-dashboard calls a picture."""
    return picture.replace("_", "-")


def bring_up_to_date(ledger: Ledger, listener: Listener) -> Evidence | None:
    """Show a study that is under way, by what its database says; None where that could not be done, which is said.

    Raises:
        Interrupted: while a database was waited for.
    """
    try:
        evidence = ledger.transactions.again(lambda: read_evidence(ledger.database, ledger.study.study_name))
        ledger.transactions.again(lambda: show(ledger.study, evidence, ledger.database))
    except Interrupted:
        raise
    except Exception as error:  # noqa: BLE001  whatever keeps a picture from being drawn, the study is worth more
        listener(Noted(f"optuna-dashboard does not show the last findings: {error}"))
        return None
    return evidence


class ShownWhileItGoesOn:
    """A listener that shows a study now and then, when a trial has ended.

    Args:
        listener: told everything first.
        show: shows it.
        clock: seconds.
    """

    def __init__(
        self, listener: Listener, show: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._listener = listener
        self._show = show
        self._clock = clock
        self._next = clock() + PAUSE_S

    def __call__(self, event: Event) -> None:
        self._listener(event)
        if isinstance(event, TrialEnded) and self._clock() >= self._next:
            started = self._clock()
            self._show()
            took = self._clock() - started
            self._next = self._clock() + max(PAUSE_S, took / SHARE)


def local_only(app: WSGIApplication) -> WSGIApplication:
    """A web application for this machine alone.

    It listens on this machine only, and asks nobody for a password. A page of another site may still send a browser's
    requests here, under a name of its own that it has point to this machine: what was asked for by such a name, or by
    a page from elsewhere, is refused.
    """

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if urlsplit(f"//{host}").hostname in LOCAL_NAMES and origin in (None, f"http://{host}"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"batchopt's dashboard is for this machine alone: open it as http://127.0.0.1\n"]

    return checked


def note(report: Report) -> str:
    """The document in Markdown."""
    return "\n".join([*(_block(block) for section in document(report) for block in section), SIGNED])


def _block(block: Paragraph | Table) -> str:
    if isinstance(block, Paragraph):
        text = _text(block.text)
        return f"**{text}**\n" if block.role in ("advice", "heading") else f"{text}\n"
    drawn = [f" `{dots(mark)}` |" for mark in block.marks] or [""] * len(block.rows)
    columns = [*map(_text, block.columns), *([""] if block.marks else [])]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(_marked(cells, marked=marked)) + " |" + mark
        for (cells, marked), mark in zip(block.rows, drawn, strict=True)
    ]
    return "\n".join([*lines, ""])


def dots(mark: Mark | None) -> str:
    """A dot and its interval as text of one width, what is as good marked beneath it."""
    if mark is None:
        return "\N{MIDDLE DOT}" * DOTS
    low, middle, high, left, right = (round(at * (DOTS - 1)) for at in (mark.low, mark.middle, mark.high, *mark.band))
    drawn = ["\N{MIDDLE DOT}" if left <= at <= right else "\N{NO-BREAK SPACE}" for at in range(DOTS)]
    drawn[low : high + 1] = ["\N{BOX DRAWINGS LIGHT HORIZONTAL}"] * (high + 1 - low)
    drawn[middle] = "\N{BLACK CIRCLE}"
    return "".join(drawn)


def _marked(cells: list[str], *, marked: bool) -> list[str]:
    shown = [_text(cell) for cell in cells]
    return [f"**{cell}**" if cell else "" for cell in shown] if marked else shown


def _text(text: str) -> str:
    """Text as Markdown that shows it: no link, picture, formula or HTML, whoever named what it tells of."""
    return MARKDOWN.sub(r"\\\1", printable(text))
