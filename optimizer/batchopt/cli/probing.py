"""`batchopt probe`: this machine, measured with the program of a study script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batchopt.cli.parsing import _space_function, parse_bytes
from batchopt.cli.terminal import console, print_json, say, view
from batchopt.measured import ENGINES
from batchopt.question.options import Options
from batchopt.question.script import read_question, reference_script
from batchopt.report.show.inspection_view import inspection_view


@click.command("probe")
@click.argument("script", required=False, type=click.Path(path_type=Path))
@click.option("--batch-sizes", metavar="8..1024", help="As in a study.  [default: the script's]")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|gpu|gpu:0,1", help="What to measure.")
@click.option("--memory-limit", metavar="2GiB", help="Limit training to this much device memory.")
@click.option("--engine", type=click.Choice(ENGINES), help="Pin the engine.  [default: the fastest]")
@click.option("--data", metavar="PATH", help="Another data file of the same layout.")
@click.option("--train-examples", type=int, help="Train on a fixed random subset of N examples.  [default: all]")
@click.option(
    "--storage",
    metavar="FILE|URL",
    help="Record the measurements in a study, whose report then covers this machine too.",
)
@click.option("--study", help="Which one; may be left out where there is only one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; progress to stderr.")
def probe_command(
    script: Path | None,
    batch_sizes: str | None,
    memory_limit: str | None,
    storage: str | None,
    study: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure this machine with the program of a study SCRIPT, or of the reference study: what fits, what it costs."""
    from batchopt.study.inspection import inspect_machine, join_study

    if study is not None and storage is None:
        raise click.UsageError("--study needs --storage, the database that it is in.")
    if batch_sizes is not None and storage is not None:
        raise click.UsageError("--batch-sizes and --storage exclude each other: a study has batch sizes of its own.")
    question = read_question(script or reference_script())
    asked = Options(memory_limit=None if memory_limit is None else parse_bytes(memory_limit), **options)
    with view(quiet=False, to_stderr=True) as listener:
        if storage is not None:
            study, found = join_study(question, storage, study, asked, listener)
        else:
            space = _space_function(question.space, batch_sizes, None)(options["train_examples"] or 1 << 30)
            found = inspect_machine(question, space, asked, listener)
    if as_json:
        print_json(found.describe() | ({} if study is None else {"study": study}))
        return
    console().print(inspection_view(found.describe()))
    if study is not None:
        say(f"Kept with study {study}: `batchopt report` there answers for this machine too.")
