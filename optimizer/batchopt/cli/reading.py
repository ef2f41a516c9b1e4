"""`batchopt list`, `trials`, `report` and `dashboard`: what only reads."""

from __future__ import annotations

import csv
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from batchopt.cli.parsing import parse_target
from batchopt.cli.terminal import console, energy_weight_option, print_json, say, storage_option, study_option
from batchopt.errors import InvalidInput
from batchopt.goals.kinds import kind_of
from batchopt.question.goal import GOALS, PREFERENCES, TO_TARGET, Goal, GoalKind, Prefer
from batchopt.question.metric import Metric
from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.reading import list_studies, read_evidence, read_stamp, read_study
from batchopt.report.show.document import document
from batchopt.report.show.terminal import Trimmed, printed, trials_table
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.history import open_study
from batchopt.text import cell, printable

LOOPBACK = "127.0.0.1"
"""optuna-dashboard asks nobody for a password, and deletes studies at a click: it is for this machine alone."""

PNG_WIDTH, PNG_SCALE = 760, 3
"""The width of a figure, and pixels of a PNG for each of its: 300 to the inch on a page."""


@click.command("list")
@storage_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_command(storage: str, as_json: bool) -> None:
    """List the studies of a database."""
    studies = list_studies(storage)
    if as_json:
        print_json(studies)
        return
    for study in studies:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(study["trials"].items())) or "no trials"
        goal = kind_of(Goal(**study["goal"]), Metric(**study["metric"])).words()
        say(f"{printable(study['study'])}: {goal}; {counts}")


@click.command("trials")
@storage_option
@study_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document, every epoch included.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, a row for each epoch.")
def trials_command(storage: str, study: str | None, as_json: bool, as_csv: bool) -> None:
    """List the trials of a study."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    trials = read_study(storage, study)
    if as_json:
        print_json([trial.describe() for trial in trials])
    elif as_csv:
        rows = [row for trial in trials for row in trial.rows()]
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(sys.stdout, names)
        csv.writer(sys.stdout).writerow(map(cell, names))
        writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    else:
        stamp = read_stamp(storage, study)[1]
        console().print(Trimmed(trials_table(trials, stamp.metric, stamp.goal.value)))


@click.command("report")
@storage_option
@study_option
@click.option("--on", metavar="MACHINE", help="For this machine of the study: its code, or a part of its name.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="AMOUNT",
    help="Points of an accuracy, or units of another metric, that count as equally good.  "
    "[default: what runs differ by, or 1 % of the range seen]",
)
@click.option("--goal", type=click.Choice(GOALS), help="Answer for this goal.  [default: the study's own]")
@click.option(
    "--target",
    metavar="0.97|97%",
    help="Report time to this value of the metric.  [default: the goal's, or what half of the batch sizes reach]",
)
@click.option(
    "--prefer",
    type=click.Choice(PREFERENCES),
    help="The fastest that is most likely as good as the best; the best; the fastest that is as good with even odds.  "
    "[default: the study's own]",
)
@energy_weight_option
@click.option("--details", is_flag=True, help="Chances, speed, memory and laws too.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="A page with pictures; needs no network.")
@click.option(
    "--png",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the figures as 300-dpi PNGs; needs Chrome or Chromium.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def report_command(
    storage: str,
    study: str | None,
    on: str | None,
    tolerance: float | None,
    goal: GoalKind | None,
    target: str | None,
    prefer: Prefer | None,
    energy_weight: float | None,
    details: bool,
    html: Path | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Say what a study recommends, from its database alone.

    Where several machines have trained, all trials count, at the seconds that they would have taken on this one.
    """
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise InvalidInput(f"--html {html}: no file can be written there. Name one in a folder that exists.")
    if png is not None and png.exists() and not png.is_dir():
        raise InvalidInput(f"--png {png}: that is a file. Name a folder; it is made where there is none.")
    if tolerance is not None:
        tolerance /= read_stamp(storage, study)[1].metric.scaled(1.0)
    value = None if target is None else parse_target(target)
    evidence = read_evidence(
        storage,
        study,
        on,
        tolerance=tolerance,
        target=value,
        goal=goal,
        prefer=prefer,
        energy_weight=energy_weight,
    )
    written = _write_page(evidence, html) if html is not None else []
    written += _write_pictures(evidence, png) if png is not None else []
    if as_json:
        print_json(evidence.report.describe())
        return
    # Who names a target wants to know how soon it was reached.
    details = details or (value is not None and goal not in TO_TARGET)
    console().print(printed(document(evidence.report, details=details)))
    for file in written:
        say(f"written: {file}")


def _write_page(evidence: Evidence, file: Path) -> list[Path]:
    from batchopt.report.show.page import page

    try:
        file.write_text(page(evidence), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"--html {file}: {error.strerror}.") from error
    return [file]


def _write_pictures(evidence: Evidence, folder: Path) -> list[Path]:
    """The pictures; all are drawn before the first one is there."""
    import plotly.io

    from batchopt.report.show.pictures import pictures

    figures = pictures(evidence)
    with TemporaryDirectory() as drawn:
        files = [Path(drawn) / f"{name}.png" for name in figures]
        try:
            # All at once: each call starts a browser.
            plotly.io.write_images(list(figures.values()), files, width=PNG_WIDTH, scale=PNG_SCALE)
        except (ValueError, RuntimeError) as error:
            # Plotly raises the one without kaleido, and kaleido the other without a browser.
            raise InvalidInput(
                "--png needs kaleido (`pip install 'batchopt[png]'`) and a Chrome or Chromium; --html needs neither."
            ) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [Path(shutil.copy(file, folder)) for file in files]
        except OSError as error:
            raise InvalidInput(f"--png {folder}: {error.strerror}.") from error


@click.command("dashboard")
@storage_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="On this machine alone.")
def dashboard_command(storage: str, port: int) -> None:
    """Show a database in the browser, with optuna-dashboard.

    Each study's advice and pictures are brought up to date first.
    """
    from wsgiref.simple_server import make_server

    from optuna_dashboard import wsgi

    from batchopt.report.show.dashboard import local_only, show

    examined = examine(storage)
    findings = len(examined.findings)
    health = "nothing is wrong" if not findings else f"findings: {findings}, see `batchopt doctor`"
    say(f"{examined.size()}: {health}")
    names = [study["study"] for study in list_studies(storage)]
    database = open_database(storage, create=False)
    try:
        # Before anything is written.
        with make_server(LOOPBACK, port, local_only(wsgi(database.storage))) as server:
            for name in names:
                if not show(open_study(database, name), read_evidence(storage, name), database):
                    say(f"study {printable(name)} has a note of your own, which stays as it is")
            say(f"http://{LOOPBACK}:{port}/dashboard shows it; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                server.serve_forever()
    except OSError as error:
        raise InvalidInput(f"port {port} cannot be used: {error.strerror}. Use --port with another number.") from error
    finally:
        database.db.dispose()


COMMANDS = (list_command, trials_command, report_command, dashboard_command)
"""Those of this module."""
