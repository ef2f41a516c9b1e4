"""`batchopt train`: the model that a study recommends, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchopt.cli.parsing import parse_bytes
from batchopt.cli.terminal import print_json, say, storage_option, study_option, view
from batchopt.measured import ENGINES
from batchopt.question.options import Options
from batchopt.question.script import read_question
from batchopt.report.answer.reading import list_studies
from batchopt.text import printable
from batchopt.words import counted

if TYPE_CHECKING:
    from batchopt.study.model_file import ModelFile
    from batchopt.study.trained_model import On, TrainedModel


@click.command("train")
@click.argument("script", type=click.Path(path_type=Path))
@click.option("--to", "path", required=True, type=click.Path(path_type=Path), metavar="best.keras", help="The file.")
@storage_option
@study_option
@click.option(
    "--on",
    type=click.Choice(("train", "all")),
    default="train",
    show_default=True,
    help="Train on the training data, or on the validation data too.",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|gpu|gpu:0", help="Where to train.")
@click.option("--engine", type=click.Choice(ENGINES), help="Pin the engine.  [default: the fastest]")
@click.option("--deterministic", is_flag=True, help="Bit-for-bit reproducible on this machine; slower.")
@click.option("--share", is_flag=True, help="Share a GPU that a study uses.")
@click.option("--data", metavar="PATH", help="The data file, if the study was given one.")
@click.option("--train-examples", type=int, help="The size of the subset, if the study was given one.")
@click.option("--memory-limit", metavar="2GiB", help="Limit training to this much device memory.")
@click.option(
    "--accumulate/--no-accumulate",
    default=None,
    help="Train a batch that memory does not hold in micro-batches.  [default: as the study did]",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="What it was trained with as one JSON document.")
def train_command(
    script: Path,
    path: Path,
    storage: str,
    study: str | None,
    on: On,
    force: bool,
    memory_limit: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train what a study of SCRIPT recommends once more, and keep the model.

    Interrupted, the same command goes on. What the model was trained with is written beside it, as best.json.
    """
    from batchopt.study.model_file import ModelFile
    from batchopt.study.model_training import train_model

    asked = Options(memory_limit=None if memory_limit is None else parse_bytes(memory_limit), **options)
    file = ModelFile(path, force)
    file.check()
    name = study or _study_of(script, storage)
    task = read_question(script).task
    with view(quiet=quiet, to_stderr=True) as listener:
        trained = train_model(task, file, name=name, storage=storage, options=asked, on=on, listener=listener)
    if as_json:
        print_json(trained.describe())
    else:
        say(written_line(trained, file))


def written_line(trained: TrainedModel, file: ModelFile) -> str:
    """What was written, in one line."""
    metric = trained.metric
    value = "" if trained.value is None else f", {metric.title} {metric.shown(trained.value)} on validation data"
    if value and trained.on == "all":
        value += " (which it was trained on)"
    return (
        f"written: {printable(file.path)}, {trained.batch_size} x {trained.learning_rate:.3g}, "
        f"{counted(trained.epochs, 'epoch')}{value}; {printable(file.description)} says what it was trained with"
    )


def _study_of(script: Path, storage: str) -> str | None:
    """The study that is named as a script is by itself, if there is one among several."""
    names = [study["study"] for study in list_studies(storage)]
    return script.stem if len(names) > 1 and script.stem in names else None


COMMANDS = (train_command,)
"""Those of this module."""
