"""`batchopt train`, really done: a study, the model of its recommendation, Ctrl-C in the middle, bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task, read_report
from batchopt.cli.batchopt import batchopt
from batchopt.cli.study_script import script_command
from batchopt.datasets import load_mnist
from batchopt.errors import BatchoptError, InvalidInput, StorageNotFound, StudyMismatch, StudyNotFound
from batchopt.events import Event, Noted, TrainingModel
from batchopt.signals import Interrupted
from batchopt.store.database import open_database
from batchopt.store.doctor.backup import back_up
from batchopt.study.model_file import Kept, ModelFile
from batchopt.study.trained_model import TrainedModel
from batchopt.training.checkpoint import pack
from click.testing import CliRunner
from commands import worker_processes
from sharing import made_once
from written_study import new_study

SPACE = SearchSpace([32, 64, 128], (1e-4, 1e-1))
EPOCHS = 4


def load(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    parts = [(images[start:stop], labels[start:stop]) for start, stop in ((0, 1000), (1000, 1300))]
    return Dataset(*parts)


def never(path: str | None) -> Dataset:
    raise AssertionError("the data was loaded")


def build_model(learning_rate: float) -> Any:
    """With moments, dropout and statistics: weights alone would not be enough to go on from."""
    import keras
    from keras.layers import BatchNormalization, Dense, Dropout, Flatten

    layers = [Flatten(), Dense(32, "relu"), BatchNormalization(), Dropout(0.2), Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28)), *layers])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def other_model(learning_rate: float) -> Any:
    import keras

    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def annealed(learning_rate: float, steps_per_epoch: int, epochs: int) -> Any:
    import keras

    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=steps_per_epoch * epochs)
    model.compile(keras.optimizers.SGD(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


OPTIONS = Options(device="cpu", engine="fused", probe=False, prune=False)


def study_in(folder: Path, load: Any = load, build: Any = build_model, **options: Any) -> Study:
    asked = dataclasses.replace(OPTIONS, **options)
    goal = Goal(epochs=EPOCHS)
    return Study(Task(build, load), SPACE, goal, name="mnist", storage=str(folder / "studies.db"), options=asked)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("studies.db")}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials."""

    def make(folder: Path) -> None:
        study_in(folder).run(Budget(trials=2), tries=[Configuration(64, 0.01), Configuration(32, 1e-4)])

    return made_once(tmp_path_factory, "searched", make)


@pytest.fixture(scope="module")
def trained(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedModel]:
    """The folder of its model, made at one go, and what was said of it."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, study_in(searched).train(folder / "best.keras")


@pytest.fixture
def known(searched: Path, tmp_path: Path) -> Path:
    """A copy of the study in a folder of its own."""
    back_up(str(searched / "studies.db"), str(tmp_path / "studies.db"))
    return tmp_path


def evaluated(model: Any) -> dict[str, float]:
    figures: dict[str, float] = model.evaluate(*load(None).validation, batch_size=300, verbose=0, return_dict=True)
    return figures


def test_the_file_is_the_model_that_the_json_beside_it_describes(
    searched: Path, trained: tuple[Path, TrainedModel]
) -> None:
    import keras

    folder, said = trained
    document = json.loads((folder / "best.json").read_text())
    assert document == said.describe()
    assert names(folder) == {"best.keras", "best.json"}
    model = keras.saving.load_model(folder / "best.keras")
    figures = evaluated(model)
    assert figures["accuracy"] == pytest.approx(document["value"], abs=1e-6)
    assert figures["loss"] == pytest.approx(document["validation_loss"], rel=1e-5)
    assert document["value"] > 0.7
    assert float(model.optimizer.learning_rate) == pytest.approx(document["learning_rate"])
    assert int(model.optimizer.iterations) == EPOCHS * -(-1000 // document["batch_size"])
    advised = read_report(str(searched / "studies.db"), "mnist").advised
    assert advised is not None
    assert (document["batch_size"], document["learning_rate"]) == (advised.best.batch_size, advised.best.learning_rate)
    assert (document["epochs"], document["on"], document["trials"]) == (EPOCHS, "train", 2)
    assert (document["train_examples"], document["validation_examples"]) == (1000, 300)
    assert document["seed"] >= 2**31, "no trial's"


@pytest.mark.slow
def test_after_ctrl_c_the_same_call_gives_the_model_of_a_training_at_one_go(
    searched: Path, trained: tuple[Path, TrainedModel], tmp_path: Path
) -> None:
    import keras

    def interrupt(event: Event) -> None:
        if isinstance(event, TrainingModel) and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    file, events = tmp_path / "best.keras", list[Event]()
    with pytest.raises(Interrupted):
        study_in(searched).train(file, listener=interrupt)
    assert names(tmp_path) == {"best.keras.part"}
    again = study_in(searched).train(file, listener=events.append)
    assert names(tmp_path) == {"best.keras", "best.json"}
    first = next(event for event in events if isinstance(event, TrainingModel))
    assert first.epoch >= 1
    noted = [event.text for event in events if isinstance(event, Noted)]
    assert f"{file}.part: training goes on after epoch {first.epoch}" in noted
    whole = keras.saving.load_model(trained[0] / "best.keras")
    resumed = keras.saving.load_model(file)
    # Not the states of seed generators, which Keras does not save.
    kept = [[*model.weights, *model.optimizer.variables] for model in (whole, resumed)]
    for one, other in zip(*kept, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6, atol=1e-6)
    assert again.validation_loss == pytest.approx(trained[1].validation_loss, abs=1e-6)
    assert again.train_loss == pytest.approx(trained[1].train_loss, abs=1e-6)
    assert again.epochs == EPOCHS
    assert again.train_seconds > first.epoch * 1e-6


@pytest.mark.slow
def test_on_all_data_it_is_trained_on_the_validation_data_too(searched: Path, tmp_path: Path) -> None:
    import keras

    said = study_in(searched).train(tmp_path / "best.keras", on="all")
    assert (said.on, said.train_examples, said.validation_examples) == ("all", 1300, 300)
    model = keras.saving.load_model(tmp_path / "best.keras")
    assert int(model.optimizer.iterations) == EPOCHS * -(-1300 // said.batch_size)
    assert evaluated(model)["accuracy"] == pytest.approx(said.value, abs=1e-6)


@pytest.mark.slow
def test_a_schedule_follows_the_data_that_it_is_trained_on(tmp_path: Path) -> None:
    """On all data there are more steps, and the study's program is still known."""
    import keras

    study_in(tmp_path, build=annealed).run(Budget(trials=1), tries=[Configuration(64, 0.05)])
    for on, steps in (("train", 16), ("all", 21)):
        file = tmp_path / f"{on}.keras"
        study_in(tmp_path, build=annealed).train(file, on=on)  # type: ignore[arg-type]
        optimizer = keras.saving.load_model(file).optimizer
        assert optimizer._learning_rate.decay_steps == steps * EPOCHS
        assert int(optimizer.iterations) == steps * EPOCHS


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_the_epochs_since_the_last_checkpoint(
    searched: Path, trained: tuple[Path, TrainedModel], tmp_path: Path
) -> None:
    begun: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, TrainingModel) and event.figures is None:
            begun.append(event.epoch)
        elif isinstance(event, TrainingModel) and event.epoch == 2 and len(begun) == 1:
            for worker in worker_processes():
                if "batchopt.training.worker" in worker.cmdline():
                    worker.kill()

    said = study_in(searched).train(tmp_path / "best.keras", listener=kill)
    assert begun[0] == 0
    assert begun[1] >= 1
    assert said.validation_loss == pytest.approx(trained[1].validation_loss, abs=1e-6)
    assert names(tmp_path) == {"best.keras", "best.json"}


@pytest.mark.slow
def test_on_the_command_line_it_is_one_json_document(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways: `batchopt train`, and `--save-model` of the script, whose study is done."""
    monkeypatch.chdir(known)
    script = "from batchopt import run_script\nfrom test_train import *\n"
    Path("mnist.py").write_text(f"{script}run_script(Task(build_model, load), SPACE, Goal(epochs=EPOCHS))\n")
    where = ["--storage", "studies.db", "--device", "cpu"]
    done = CliRunner().invoke(batchopt, ["train", "mnist.py", "--to", "best.keras", *where, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(Path("best.json").read_text())
    assert f"model epoch  {EPOCHS}/{EPOCHS}" in done.stderr
    monkeypatch.setattr(Study, "run", lambda study, *budget, **options: study.report())
    options = [*where, "--study", "mnist", "--save-model", "again.keras"]
    again = CliRunner().invoke(script_command(Task(build_model, load), SPACE, Goal(epochs=EPOCHS)), options)
    assert again.exit_code == 0, again.output
    assert "written: again.keras, 64 x 0.01, 4 epochs" in again.stdout
    assert "again.json says what it was trained with" in again.stdout
    same = ("batch_size", "learning_rate", "seed", "data", "epochs")
    one, other = (json.loads(Path(name).read_text()) for name in ("best.json", "again.json"))
    assert [one[name] for name in same] == [other[name] for name in same]


@pytest.mark.slow
def test_with_a_target_it_ends_there(tmp_path: Path) -> None:
    goal, storage = Goal("time", epochs=6, target=0.6), str(tmp_path / "studies.db")
    study = Study(Task(build_model, load), SPACE, goal, name="mnist", storage=storage, options=OPTIONS)
    study.run(Budget(trials=1), tries=[Configuration(64, 0.01)])
    said = study.train(tmp_path / "best.keras")
    assert said.epochs < 6
    assert said.target_reached
    assert said.value is not None and said.value >= 0.6
    on_all = study.train(tmp_path / "all.keras", on="all")
    assert on_all.target_reached is None
    assert on_all.epochs < 6


def test_another_program_is_refused_and_nothing_is_written(searched: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyMismatch, match="model"):
        study_in(searched, build=other_model).train(tmp_path / "best.keras")
    assert names(tmp_path) == set()


def refused(study: Study, path: Path, kind: type[BatchoptError], why: str, **how: Any) -> None:
    before = {file: file.read_bytes() for file in path.parent.glob("*") if file.is_file()}
    with pytest.raises(kind) as error:
        study.train(path, **how)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in path.parent.glob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("best.h5", "Keras writes files whose names end in .keras"),
        (".keras", "Keras writes files whose names end in .keras"),
        ("nowhere/best.keras", "nowhere does not exist. Make it first"),
        ("there.keras", "there.keras exists already. Choose another name, or replace it with --force"),
        ("described.keras", "described.json exists already"),
        ("folder.keras", "folder.keras: that is no file"),
        ("begun.keras", "begun.keras.part is not a checkpoint of this command, or is damaged"),
    ],
)
def test_where_no_model_can_be_written_it_is_said_in_a_line(known: Path, name: str, why: str) -> None:
    for file in ("there.keras", "described.json", "begun.keras.part"):
        (known / file).write_text("mine")
    (known / "folder.keras").mkdir()
    refused(study_in(known, never), known / name, InvalidInput, why)


def test_what_cannot_be_trained_is_said_in_a_line(known: Path) -> None:
    file = known / "best.keras"
    refused(study_in(known, never), file, InvalidInput, "--on test: unknown. Use train, or all", on="test")
    refused(study_in(known, never, ray="auto"), file, InvalidInput, "--ray auto: a model is trained and written on")
    (known / "empty").mkdir()
    refused(study_in(known / "empty", never), file, StorageNotFound, "studies.db does not exist")
    other = Study(Task(build_model, never), SPACE, name="cifar", storage=str(known / "studies.db"))
    refused(other, file, StudyNotFound, "it holds 'mnist'")


def test_without_a_complete_trial_there_is_nothing_to_train(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "studies.db"), create=True)
    new_study(database)
    database.db.dispose()
    refused(
        study_in(tmp_path, never), tmp_path / "best.keras", InvalidInput, "recommends nothing yet: no trial is comp"
    )


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    file, state = ModelFile(tmp_path / "best.keras"), pack([np.arange(3.0)])
    file.keep({"batch_size": 64, "extra": {}}, Kept(3, 1.5, state))
    assert file.kept({"batch_size": 64, "extra": {}}) == Kept(3, 1.5, state)
    assert file.kept({"batch_size": 32, "extra": {}}) is None
    assert names(tmp_path) == {"best.keras.part"}
    content = file.part.read_bytes()
    file.part.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput, match="is damaged"):
        file.kept({"batch_size": 64, "extra": {}})
    assert dataclasses.replace(file, force=True).kept({"batch_size": 64, "extra": {}}) is None


def test_what_has_come_in_its_place_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = ModelFile(tmp_path / "best.keras")
    file.check()
    new = file.temporary()
    new.write_text("new")
    file.path.write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        file.publish(new, {})
    assert file.path.read_text() == "mine"
    dataclasses.replace(file, force=True).publish(new, {"seed": 1})
    assert (file.path.read_text(), json.loads(file.description.read_text())) == ("new", {"seed": 1})
