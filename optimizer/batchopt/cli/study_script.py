"""The command line of a study script: `run_script`, its options, and what they become."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchopt.cli import study_script as scripting
from batchopt.cli.exits import _finish
from batchopt.cli.parsing import _space_function, parse_bytes, parse_configuration, parse_duration, parse_target
from batchopt.cli.probing import probe_command
from batchopt.cli.terminal import console, energy_weight_option, print_json, ray_options, say, storage_option, view
from batchopt.cli.training import written_line
from batchopt.goals.kinds import kind_of
from batchopt.measured import ENGINES
from batchopt.question.goal import GOALS, PREFERENCES, Goal, GoalKind
from batchopt.question.options import (
    AUTO_SEARCH,
    CHECKPOINT_LIMIT,
    CONFIRM_SEEDS,
    DEFAULT_TRIALS,
    LEASE_SECONDS,
    SEARCHES,
    Budget,
    Options,
    check_confirm_seeds,
    parse_worth,
)
from batchopt.question.script import Question, note
from batchopt.question.space import SearchSpace, shown_space
from batchopt.question.task import Task
from batchopt.report.show.document import document
from batchopt.report.show.live import opened_lines
from batchopt.report.show.terminal import printed
from batchopt.words import duration

if TYPE_CHECKING:
    from batchopt.report.show.trackers import Tracker
    from batchopt.study.study import Plan


def script_command(task: Task, space: SearchSpace, goal: Goal, trackers: Sequence[Tracker] = ()) -> click.Command:
    """The command line of the script that is run, with the question that it asks."""
    script = Path(sys.argv[0]).stem or "study"

    @click.command(
        name=Path(sys.argv[0]).name,
        help=(sys.modules["__main__"].__doc__ or "").strip() or None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    @click.option("--study", default=script, show_default=True, help="Name of the study in its database.")
    @storage_option
    @click.option("--trials", type=int, help=f"Trials of the study, in total.  [default: {DEFAULT_TRIALS}]")
    @click.option("--time-budget", metavar="10m", help="Wall time of the study, in total: 90s, 10m, 1h30m.")
    @click.option("--goal", "kind", type=click.Choice(GOALS), help=f"What to optimize for.  [default: {goal.kind}]")
    @click.option("--target", metavar="0.97|97%", help="Value of the metric to be reached; for goals time, energy.")
    @energy_weight_option
    @click.option("--epochs", type=int, default=goal.epochs, show_default=True, help="Epochs of a whole trial.")
    @click.option(
        "--batch-sizes",
        metavar="8..1024",
        help=f"Powers of two; or 1..full, 16,32,64, 8..1024:int.  [default: {space.smallest}..{space.largest}]",
    )
    @click.option(
        "--learning-rates",
        metavar="1e-4..1e-1",
        help="A range, searched on a log scale.  [default: {:g}..{:g}]".format(*space.learning_rate),
    )
    @click.option("--search", type=click.Choice((AUTO_SEARCH, *SEARCHES)), help="How to search.  [default: auto]")
    @click.option("--no-stop", is_flag=True, help="Do not stop early; implied by --trials.")
    @click.option("--worth", metavar="RATE", help="End where less is to be gained: '0.1 points per minute'.")
    @click.option("--try", "tries", metavar="32:0.001", multiple=True, help="Train this first; may be repeated.")
    @click.option("--seed", type=int, help="Decides what is tried and how trials begin.  [default: 0]")
    @click.option("--workers", type=int, help="Worker processes.  [default: one on each GPU, or one]")
    @click.option("--device", default="auto", show_default=True, metavar="auto|cpu|gpu|gpu:0,1", help="Where to train.")
    @click.option("--engine", type=click.Choice(ENGINES), help="Pin the engine.  [default: the fastest]")
    @click.option(
        "--deterministic",
        is_flag=True,
        help="Bit-for-bit reproducible on this machine, even across interruptions; slower.",
    )
    @click.option("--data", metavar="PATH", help="Another data file of the same layout.")
    @click.option("--train-examples", type=int, help="Train on a fixed random subset of N examples.  [default: all]")
    @click.option("--memory-limit", metavar="2GiB", help="Limit training to this much device memory.")
    @click.option(
        "--probe/--no-probe",
        default=None,
        help="Measure the machine again, or never.  [default: what was not measured before]",
    )
    @click.option(
        "--accumulate/--no-accumulate",
        default=None,
        help="Train a batch that memory does not hold in micro-batches.  [default: as the study did, or no]",
    )
    @click.option(
        "--prefer",
        type=click.Choice(PREFERENCES),
        help="Recommend the fastest that is as good, or the best.  [default: as the study did, or balanced]",
    )
    @click.option("--share", is_flag=True, help="Share a GPU that another study uses.")
    @click.option(
        "--lease",
        type=float,
        default=LEASE_SECONDS,
        show_default=True,
        help="Seconds without a heartbeat after which another process may take over a trial.",
    )
    @click.option("--checkpoint-limit", metavar="64MB", help="Checkpoints above this size are kept in files.")
    @click.option("--checkpoints", metavar="PATH|URL", help="Where those files go.  [default: beside the database]")
    @ray_options
    @click.option("--no-pruning", is_flag=True, help="Train every trial to its last epoch.")
    @click.option(
        "--confirm",
        is_flag=True,
        help="Then retrain the recommendation with new seeds and evaluate it on the test set.",
    )
    @click.option(
        "--confirm-seeds",
        type=int,
        default=CONFIRM_SEEDS,
        show_default=True,
        help="Runs of each configuration, in total.",
    )
    @click.option(
        "--save-model",
        type=click.Path(path_type=Path),
        metavar="best.keras",
        help="Then train the recommendation with a new seed, and keep the model.",
    )
    @click.option("--force", is_flag=True, help="Replace the files of --save-model.")
    @click.option("--plan", "plan_only", is_flag=True, help="Dry run: show the plan and exit.")
    @click.option("--quiet", is_flag=True, help="No progress, only the report.")
    @click.option("--json", "as_json", is_flag=True, help="The report as one JSON document; progress to stderr.")
    def command(
        study: str,
        storage: str,
        trials: int | None,
        time_budget: str | None,
        kind: GoalKind | None,
        target: str | None,
        energy_weight: float | None,
        epochs: int,
        batch_sizes: str | None,
        learning_rates: str | None,
        tries: tuple[str, ...],
        no_pruning: bool,
        no_stop: bool,
        worth: str | None,
        memory_limit: str | None,
        checkpoint_limit: str | None,
        confirm: bool,
        confirm_seeds: int,
        save_model: Path | None,
        force: bool,
        plan_only: bool,
        quiet: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        # What trains is not loaded by commands that only read.
        from batchopt.study.model_file import ModelFile
        from batchopt.study.model_training import check_on
        from batchopt.study.study import Study

        # Before the study, which may take hours.
        check_confirm_seeds(confirm_seeds)
        wanted = goal.changed(kind, None if target is None else parse_target(target), epochs, energy_weight)
        asked = Study(
            task,
            _space_function(space, batch_sizes, learning_rates),
            wanted,
            name=study,
            storage=storage,
            options=Options(
                prune=not no_pruning,
                memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
                checkpoint_limit=parse_bytes(checkpoint_limit or str(CHECKPOINT_LIMIT), "--checkpoint-limit"),
                **options,
            ),
        )
        file = None if save_model is None else ModelFile(save_model, force)
        if file is not None:
            file.check()
            check_on("train", asked.options)
        budget = Budget(
            trials=DEFAULT_TRIALS if trials is None and time_budget is None else trials,
            seconds=None if time_budget is None else parse_duration(time_budget),
            # Who names a number of trials wants that many.
            until_known=trials is None and not no_stop,
            worth=None if worth is None else parse_worth(worth),
        )
        configurations = [parse_configuration(text) for text in tries]
        watched = view(quiet=quiet, to_stderr=as_json)
        if plan_only:
            with watched as listener:
                plan = asked.plan(budget, tries=configurations, listener=listener)
            _print_plan(plan, budget, as_json=as_json)
            return
        with watched as listener:
            for tracker in trackers:
                listener = tracker.behind(listener)
            report = asked.run(budget, tries=configurations, listener=listener, test_set=confirm)
            if confirm:
                report = asked.confirm(confirm_seeds, listener=listener)
            trained = None if file is None else asked.train(file.path, force=force, listener=listener)
        if as_json:
            print_json(report.describe())
        else:
            click.echo()
            console().print(printed(document(report, details=False)))
        if file is not None and trained is not None:
            say(written_line(trained, file), err=as_json)

    return command


def _print_plan(plan: Plan, budget: Budget, *, as_json: bool) -> None:
    opened, stamp = plan.opened, plan.stamp
    assert opened.machine is not None, "a script's models are trained by our own workers"
    left = None if budget.trials is None else max(0, budget.trials - opened.finished)
    if as_json:
        print_json(
            {
                "study": opened.study,
                "storage": opened.storage,
                "new": plan.new,
                "machine": opened.machine.describe(),
                "engine": opened.engine,
                "goal": stamp.goal.describe(),
                "metric": asdict(stamp.metric),
                "space": stamp.space.describe(),
                "search": stamp.search,
                "seed": stamp.seed,
                "trials_left": left,
                "time_budget_seconds": budget.seconds,
            }
        )
        return
    for line in opened_lines(opened):
        say(line)
    say(f"space    {shown_space(stamp.space)}")
    say(f"goal     {kind_of(stamp.goal, stamp.metric).words()}; search {stamp.search}, seed {stamp.seed}")
    limits = [f"{left} more trials"] if left is not None else []
    limits += [f"until {duration(budget.seconds)} have been spent"] if budget.seconds is not None else []
    say(f"would    train {', '.join(limits)}; nothing has been written")


COMMANDS = (probe_command,)
"""Those of `batchopt` that are here."""


def run_script(task: Task, space: SearchSpace, goal: Goal, *, trackers: Sequence[Tracker] = ()) -> NoReturn:
    """The command line of a study script: the question in the script, everything else an option.

    Args:
        task, space, goal: the question; `--batch-sizes` and `--learning-rates`, `--goal`, `--target` and `--epochs`
            change the last two.
        trackers: told of each trial, too: `MLflow()`, `TensorBoard("runs")`.
    """
    if note(Question(task, space, goal)):
        raise SystemExit(0)
    _finish(scripting.script_command(task, space, goal, trackers))
