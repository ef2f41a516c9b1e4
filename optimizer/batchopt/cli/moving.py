"""`batchopt export`, `merge` and `doctor`: what moves and heals databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from batchopt.cli.terminal import print_json, say, storage_option
from batchopt.report.show.console import TextConsole
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.transfer.transfer import Transferred, export, merge

FINDINGS = 1
"""Exit code where a database is not as it should be."""


def checkpoints_option(command: Callable[..., None]) -> Callable[..., None]:
    """Where a study was told to keep large states: no folder is opened because a database says so."""
    return click.option(
        "--checkpoints", metavar="PATH|URL", help="As in the study's script.  [default: beside the database]"
    )(command)


@click.command("export")
@storage_option
@click.option("--study", help="Name of the study.  [default: all]")
@click.option("--to", required=True, metavar="FILE|URL", help="A new SQLite file, or another database.")
@checkpoints_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def export_command(storage: str, study: str | None, to: str, checkpoints: str | None, as_json: bool) -> None:
    """Copy a study, or all, to a new file or another database; unfinished trials and their checkpoints included."""
    with _progress() as progress:
        done = export(storage, to, study, checkpoints=checkpoints, progress=progress)
    _print_transferred(done, as_json=as_json)


@click.command("merge")
@click.argument("databases", nargs=-1, required=True, metavar="FILE|URL...")
@click.option("--study", help="Name of the study.  [default: all]")
@click.option("--to", required=True, metavar="FILE|URL", help="A new database, or one that they are to be joined to.")
@checkpoints_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def merge_command(
    databases: tuple[str, ...], study: str | None, to: str, checkpoints: str | None, as_json: bool
) -> None:
    """Join studies that went on separately; DATABASES stay as they are.

    Duplicate trials are merged, keeping the copy trained furthest. Safe to repeat.
    """
    with _progress() as progress:
        done = merge(databases, to, study, checkpoints=checkpoints, progress=progress)
    _print_transferred(done, as_json=as_json)


@click.command("doctor")
@storage_option
@click.option("--fix", is_flag=True, help="Repair what can be repaired, after a backup.")
@checkpoints_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor_command(storage: str, fix: bool, checkpoints: str | None, as_json: bool) -> None:
    """Look for what is wrong with a database; exit code 1 where something is."""
    with _progress():
        examined = repair(storage, checkpoints) if fix else examine(storage, checkpoints)
    if as_json:
        print_json(examined.describe())
    else:
        for finding in examined.repaired:
            say(f"repaired: {finding.what}")
        for finding in examined.findings:
            say(f"{finding.kind}: {finding.what}\n    {'with --fix: ' if finding.repair else ''}{finding.remedy}")
        if examined.backup:
            say(f"backup   {examined.backup}")
        looked = f"{examined.size()}"
        verdict = "nothing is wrong" if not examined.findings else f"findings: {len(examined.findings)}"
        say(f"{looked}: {verdict}")
    if examined.findings:
        raise SystemExit(FINDINGS)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says how far it is, on a terminal."""
    console = TextConsole(stderr=True)
    with console.status("looking at the databases") as status:
        yield status.update


def _print_transferred(done: Transferred, *, as_json: bool) -> None:
    if as_json:
        print_json(done.describe())
        return
    for study in done.studies:
        new = [f"{study[name]} {name}" for name in ("added", "continued") if study[name]] or ["nothing new"]
        say(
            f"study {study['name']}: {study['trials']} trials, {study['epochs']} epochs, {study['checkpoints']} "
            f"checkpoints ({', '.join(new)}), verified"
        )
        for conflict in study["conflicts"]:
            say(f"conflict: {conflict}")
        for what in study["left"]:
            say(f"left     {what}")
    say(f"in       {done.to}")


COMMANDS = (export_command, merge_command, doctor_command)
"""Those of this module."""
