"""`batchopt tune -- COMMAND`: a study of a command of any kind, without a server and without a change to its code."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import click

from batchopt.cli.parsing import parse_batch_sizes, parse_extra, parse_learning_rates
from batchopt.cli.terminal import console, say, storage_option, view
from batchopt.errors import InvalidInput, StorageError, StorageNotFound, StudyMismatch
from batchopt.question.goal import Goal
from batchopt.question.metric import DIRECTIONS, direction_by
from batchopt.question.options import DEFAULT_TRIALS, LEASE_SECONDS, MAX_SEED, MOST_BYTES, Budget, Options, gpu_indices
from batchopt.question.space import SearchSpace
from batchopt.question.task import ProgramStamp
from batchopt.report.answer.reading import read_study
from batchopt.report.show.document import document
from batchopt.report.show.terminal import printed
from batchopt.signals import Interruption
from batchopt.store.access import is_file, path_of
from batchopt.store.attributes import TUNE
from batchopt.store.making import checked_name, quiet_optuna
from batchopt.store.stamp import Stamp
from batchopt.study.finding import differences, remembered

if TYPE_CHECKING:
    from batchopt.study.command_line import Command

DEFAULTS = {"learning_rates": "1e-4..1e-1", "trials": DEFAULT_TRIALS, "seed": 0, "extra": []}
"""Of what need not be said of a new study."""

KINDS = {
    **dict.fromkeys(("batch_sizes", "learning_rates", "metric", "direction", "read", "results"), str),
    **dict.fromkeys(("epochs", "examples", "trials", "seed"), int),
    **dict.fromkeys(("command", "extra"), list),
}
"""What a study keeps of its command line."""

HOW = ("command", "read", "results")
"""Of these what is said is how a trial is run and read, and not what is asked."""

NEEDED = ("batch_sizes", "metric", "epochs", "examples")


@click.command("tune", context_settings={"ignore_unknown_options": False})
@storage_option
@click.option("--study", default="tune", show_default=True, help="Name of the study; it alone resumes one.")
@click.option("--batch-sizes", metavar="16..512", help="As for a study script.")
@click.option("--learning-rates", metavar="LOW..HIGH", help="Searched on a log scale.  [default: 1e-4..1e-1]")
@click.option("--extra", multiple=True, metavar="NAME=LOW..HIGH", help="A further dimension, {NAME} in the command.")
@click.option("--metric", help="What the command tells of each epoch.")
@click.option(
    "--direction", type=click.Choice(DIRECTIONS), help="Which is better.  [default: as the metric's name says]"
)
@click.option("--epochs", type=click.IntRange(1), help="Of a whole trial.")
@click.option("--examples", type=click.IntRange(1, MOST_BYTES), help="Of the training set.")
@click.option("--trials", type=click.IntRange(1), help=f"In all.  [default: {DEFAULT_TRIALS}]")
@click.option("--read", metavar="REGEX", help="Finds the metric in a line.  [default: lines of JSON]")
@click.option("--results", metavar="PATH", help="The file that tells epochs.  [default: the command's output]")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Decides what is tried.")
@click.option("--workers", type=click.IntRange(1, 256), help="Commands at once.  [default: one, or one on each GPU]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|gpu|gpu:0,1", help="What commands see.")
@click.option("--lease", type=float, default=LEASE_SECONDS, show_default=True, help="As for a study script.")
@click.option("--quiet", is_flag=True, help="Only the report.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def tune_command(
    storage: str,
    study: str,
    workers: int | None,
    device: str,
    lease: float,
    quiet: bool,
    **said: Any,
) -> None:
    """Search batch size and learning rate of COMMAND, which has {batch_size} and {learning_rate} where these go.

    Each trial is a process; {epochs}, {trial} and {device} are filled in too. It prints a line of JSON with the metric
    after each epoch, or whatever --read finds. One that goes on from the file {checkpoint}, if it is there, trains
    after {from_epoch} until {until_epoch}, and saves that file before it ends, is paused when another promises more.
    Any other one is ended where it has no hope left of becoming the best.
    """
    from batchopt.study.command import CommandLoop
    from batchopt.study.jobs import JobSession

    checked_name(study)
    gpus = gpu_indices(device)
    devices = ["cpu"] if gpus == () else [str(number) for number in gpus or ()]
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    asked, new = _asked(study, storage, {name: value for name, value in given.items() if value not in (None, [])})
    run, stamp = _run(asked), _stamp(asked)
    options = Options(seed=asked["seed"], lease=lease, prune=run.resumes)
    budget = Budget(trials=asked["trials"])
    with quiet_optuna(), Interruption() as interruption, view(quiet=quiet, to_stderr=True) as listener:
        check = interruption.check
        session = JobSession.open(study, storage, stamp, options=options, budget=budget, listener=listener, check=check)
        with session:
            if new:
                _same(study, session.remembered(TUNE, asked, anew=True)[0], asked)
            count = workers or len(devices) or 1
            CommandLoop(session, run, workers=count, devices=devices, interruption=interruption).run()
            report = session.report()
    click.echo()
    console().print(printed(document(report, details=False)))


def _asked(study: str, storage: str, given: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What is asked, all of it, and whether the study is yet to keep some of it.

    Raises:
        StudyMismatch: the study asks something else.
        InvalidInput: something is left out that it does not keep, or that is not taken from its database.
    """
    try:
        kept = remembered(study, storage, TUNE)
    except StorageNotFound:
        kept = None
    if not isinstance(kept, dict):
        if missing := [name for name in NEEDED if name not in given]:
            option = missing[0].replace("_", "-")
            raise InvalidInput(f"there is no study {study!r} to resume, and a new one needs --{option}. Add it.")
        return {**DEFAULTS, "command": [], **given}, True
    if not _sound(kept):
        raise StorageError(f"what the database says of study {study!r} is damaged; restore a copy of it.")
    asked = {**kept, **given}
    # A command that has told nothing yet may be mended.
    mended = {name: asked.get(name) for name in HOW if asked.get(name) != kept.get(name)}
    if mended and not any(trial.epochs for trial in read_study(storage, study)):
        kept = {**kept, **mended}
    _same(study, kept, asked)
    if "command" not in given:
        _trust(study, storage, asked["command"])
    return asked, bool(mended)


def _same(study: str, kept: object, asked: dict[str, Any]) -> None:
    """Raise StudyMismatch where a study keeps another question; how many trials there are in all is no part of it."""
    assert isinstance(kept, dict)
    differing = differences({**kept, "trials": None}, {**asked, "trials": None})
    if differing:
        raise StudyMismatch(
            f"study {study!r} has {'; '.join(differing)}. A study keeps its question: --study {study} alone resumes "
            "it. Use --study with another name for another one."
        )


def _sound(kept: dict[str, Any]) -> bool:
    """Whether what a database says is what we have put there."""
    texts = [text for value in kept.values() if isinstance(value, list) for text in value]
    kinds = all(type(value) is KINDS.get(name) for name, value in kept.items())
    return kinds and all(isinstance(text, str) for text in texts) and {*NEEDED, *DEFAULTS, "command"} <= kept.keys()


def _trust(study: str, storage: str, command: list[str]) -> None:
    """Say which command a study resumes; one that somebody else may have put there is not run."""
    line = shlex.join(command)
    if not is_file(storage) or not _own(path_of(storage).stat()):
        raise InvalidInput(
            f"study {study!r} keeps its command in a database that others may write, from which none is run. Give it "
            f"again, if it is yours: -- {line}"
        )
    say(f"resumes: {line}", err=True)


def _own(file: os.stat_result) -> bool:
    return file.st_uid == os.getuid() and not file.st_mode & 0o022


def _run(asked: dict[str, Any]) -> Command:
    from batchopt.study.command_line import Command

    read = asked.get("read")
    try:
        pattern = None if read is None else re.compile(read)
    except re.error as error:
        raise InvalidInput(f"--read {read}: no regular expression ({error}).") from None
    extra = tuple(parse_extra(text)[0] for text in asked["extra"])
    return Command(tuple(asked["command"]), asked["metric"], pattern, asked.get("results"), extra)


def _stamp(asked: dict[str, Any]) -> Stamp:
    metric, examples = asked["metric"], asked["examples"]
    sizes = parse_batch_sizes(asked["batch_sizes"], full=examples)
    extra = dict(parse_extra(text) for text in asked["extra"])
    space = SearchSpace(sizes, parse_learning_rates(asked["learning_rates"]), extra)
    if space.largest > examples:
        raise InvalidInput(f"batch size {space.largest} is above --examples {examples}. Mend one of them.")
    direction = direction_by(metric, asked.get("direction"), "--direction")
    program = ProgramStamp("", "", examples, 0, metric, direction)
    return Stamp(space, Goal(epochs=asked["epochs"]), program, seed=asked["seed"], search="auto")


COMMANDS = (tune_command,)
"""Those of this module."""
