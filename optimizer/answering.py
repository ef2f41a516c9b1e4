"""`batchopt report`: the answer on the screen, as JSON, as a page, as pictures. It prints, as `cli.py` does."""

from __future__ import annotations

from pathlib import Path

import click

from optimizer.commands import console, print_json, storage_option, study_option
from optimizer.errors import InvalidInput
from optimizer.report.reading import read_evidence
from optimizer.report.report_view import report_view

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
@click.option(
    "--target",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="ACCURACY",
    help="How soon this validation accuracy is reached.  [default: what half of the batch sizes reach]",
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="A page with pictures; needs no network.")
@click.option("--png", type=click.Path(path_type=Path), metavar="DIR", help="The pictures, for papers; needs a Chrome.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def report_command(
    storage: str,
    study: str | None,
    on: str | None,
    tolerance: float | None,
    target: float | None,
    html: Path | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Say what a study recommends, from its database alone.

    Where several machines have trained, all trials count, at the seconds that they would have taken on this one.
    """
    points = None if tolerance is None else tolerance / 100
    evidence = read_evidence(storage, study, on, tolerance=points, target=target)
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
