"""`batchopt tune -- COMMAND`: a study of a command of any kind, without a server and without a change to its code."""

from __future__ import annotations

import re

import click

from batchopt.cli.parsing import parse_batch_sizes, parse_learning_rates
from batchopt.cli.terminal import console, storage_option, view
from batchopt.errors import InvalidInput
from batchopt.question.goal import Goal
from batchopt.question.metric import DIRECTIONS, Direction, direction_by
from batchopt.question.options import DEFAULT_TRIALS, LEASE_SECONDS, MOST_BYTES, Budget, Options
from batchopt.question.space import SearchSpace
from batchopt.question.task import ProgramStamp
from batchopt.report.show.document import document
from batchopt.report.show.terminal import printed
from batchopt.signals import Interruption
from batchopt.store.making import checked_name, quiet_optuna
from batchopt.store.stamp import Stamp


@click.command("tune", context_settings={"ignore_unknown_options": False})
@storage_option
@click.option("--study", default="tune", show_default=True, help="Name of the study; the same command resumes it.")
@click.option("--batch-sizes", required=True, metavar="16..512", help="As for a study script.")
@click.option(
    "--learning-rates", default="1e-4..1e-1", show_default=True, metavar="LOW..HIGH", help="Searched on a log scale."
)
@click.option("--metric", required=True, help="What the command tells of each epoch.")
@click.option(
    "--direction", type=click.Choice(DIRECTIONS), help="Which is better.  [default: as the metric's name says]"
)
@click.option("--epochs", type=click.IntRange(1), required=True, help="Of a whole trial.")
@click.option("--examples", type=click.IntRange(1, MOST_BYTES), required=True, help="Of the training set.")
@click.option("--trials", type=click.IntRange(1), default=DEFAULT_TRIALS, show_default=True, help="In all.")
@click.option("--read", "pattern", metavar="REGEX", help="Finds the metric in a line.  [default: lines of JSON]")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Commands at once.")
@click.option("--seed", type=int, help="Decides what is tried.")
@click.option("--lease", type=float, default=LEASE_SECONDS, show_default=True, help="As for a study script.")
@click.option("--quiet", is_flag=True, help="Only the report.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def tune_command(
    storage: str,
    study: str,
    batch_sizes: str,
    learning_rates: str,
    metric: str,
    direction: Direction | None,
    epochs: int,
    examples: int,
    trials: int,
    pattern: str | None,
    workers: int,
    seed: int | None,
    lease: float,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Search batch size and learning rate of COMMAND, which has {batch_size} and {learning_rate} where these go.

    Each trial is a process; {epochs} and {trial} are filled in too. It prints a line of JSON with the metric after
    each epoch, or whatever --read finds.
    """
    from batchopt.study.command import Command, CommandLoop
    from batchopt.study.jobs import JobSession

    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InvalidInput(f"--read {pattern}: no regular expression ({error}).") from None
    run = Command(command, metric, compiled)
    space = SearchSpace(parse_batch_sizes(batch_sizes, full=examples), parse_learning_rates(learning_rates))
    if space.largest > examples:
        raise InvalidInput(f"batch size {space.largest} is above --examples {examples}. Mend one of them.")
    options = Options(seed=seed, lease=lease, prune=False)
    program = ProgramStamp("", "", examples, 0, metric, direction_by(metric, direction, "--direction"))
    stamp = Stamp(space, Goal(epochs=epochs), program, seed=seed or 0, search="auto")
    checked_name(study)
    with quiet_optuna(), Interruption() as interruption, view(quiet=quiet, to_stderr=True) as listener:
        check, budget = interruption.check, Budget(trials=trials)
        session = JobSession.open(study, storage, stamp, options=options, budget=budget, listener=listener, check=check)
        with session:
            CommandLoop(session, run, workers=workers, interruption=interruption).run()
            report = session.report()
    console().print(printed(document(report)))


COMMANDS = (tune_command,)
