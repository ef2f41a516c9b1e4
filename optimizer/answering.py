"""`batchopt report` and `batchopt dashboard`: the answer on the screen, as JSON, a page, pictures, in the browser.

It prints, as `cli.py` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.commands import console, print_json, storage_option, study_option
from optimizer.errors import InvalidInput
from optimizer.options import parse_target
from optimizer.report.reading import list_studies, read_evidence
from optimizer.report.report_view import report_view
from optimizer.store.database import open_database
from optimizer.store.doctor import examine
from optimizer.store.history import open_study
from optimizer.training.task import GOALS, GoalKind

LOOPBACK = "127.0.0.1"
"""optuna-dashboard asks nobody for a password, and deletes studies at a click: it is for this machine alone."""

PNG_SCALE = 3
"""Pixels of a PNG for each of the figure's: 300 to the inch on a page."""


@click.command("report")
@storage_option
@study_option
@click.option("--on", metavar="MACHINE", help="For this machine of the study: its code, or a part of its name.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="Points of accuracy that count as equally good.  [default: one standard error]",
)
@click.option("--goal", type=click.Choice(GOALS), help="Answer for this goal.  [default: the study's own]")
@click.option(
    "--target",
    metavar="0.97|97%",
    help="How soon this validation accuracy is reached.  [default: the goal's, or what half of the batch sizes reach]",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="A page with pictures; needs no network.")
@click.option("--png", type=click.Path(path_type=Path), metavar="DIR", help="The pictures, for papers; needs a Chrome.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def report_command(
    storage: str,
    study: str | None,
    on: str | None,
    tolerance: float | None,
    goal: GoalKind | None,
    target: str | None,
    html: Path | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Say what a study recommends, from its database alone.

    Where several machines have trained, all trials count, at the seconds that they would have taken on this one.
    """
    points = None if tolerance is None else tolerance / 100
    accuracy = None if target is None else parse_target(target)
    evidence = read_evidence(storage, study, on, tolerance=points, target=accuracy, goal=goal)
    written = []
    if html is not None:
        from optimizer.report.page import page

        html.write_text(page(evidence), encoding="utf-8")
        written.append(html)
    if png is not None:
        from optimizer.report.page import pictures

        png.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures(evidence).items():
            file = png / f"{name}.png"
            try:
                figure.write_image(file, scale=PNG_SCALE)
            except (ValueError, RuntimeError) as error:
                raise InvalidInput(
                    "--png needs the package kaleido and a Chrome or Chromium; use --html, or install both."
                ) from error
            written.append(file)
    if as_json:
        print_json(evidence.report.describe())
        return
    console().print(report_view(evidence.report))
    for file in written:
        click.echo(f"written: {file}")


@click.command("dashboard")
@storage_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="On this machine alone.")
def dashboard_command(storage: str, port: int) -> None:
    """Show a database in the browser, with optuna-dashboard.

    Each study's advice and pictures are brought up to date first.
    """
    from optuna_dashboard import run_server

    from optimizer.report.dashboard import show

    examined = examine(storage)
    findings = len(examined.findings)
    health = "nothing is wrong" if not findings else f"findings: {findings}, see `batchopt doctor`"
    click.echo(f"{examined.studies} studies and {examined.trials} trials in {examined.storage}: {health}")
    names = [study["study"] for study in list_studies(storage)]
    database = open_database(storage, create=False)
    for name in names:
        show(open_study(database, name), read_evidence(storage, name))
    click.echo(f"http://{LOOPBACK}:{port}/dashboard shows it; Ctrl-C ends it")
    try:
        run_server(database.storage, host=LOOPBACK, port=port)
    except OSError as error:
        raise InvalidInput(f"port {port} cannot be used: {error.strerror}. Use --port with another number.") from error
    finally:
        database.engine.dispose()


COMMANDS = (report_command, dashboard_command)
"""Those of this module."""
