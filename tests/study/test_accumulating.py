"""`accumulate`: a batch that memory does not hold is trained all the same, as the whole batch, and counts as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from batchopt.errors import InvalidInput, ModelError
from batchopt.events import Event, Noted, Opened, Trained, TrialEnded
from batchopt.report.show.law_view import memory_sentences

MIB = 1 << 20
SIZES = [64, 512, 4000]
RATES = (1e-3, 1e-2)
LARGE = Configuration(4000, 0.003)


def some_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(
        train=(images[:4000], labels[:4000]),
        validation=(images[4000:4500], labels[4000:4500]),
        test=(images[4500:5000], labels[4500:5000]),
    )


def broad(learning_rate: float) -> Any:
    """Some 50 KiB an example: 4000 of them need 200 MiB and more."""
    import keras
    from keras.layers import Dense, Flatten

    layers = [keras.Input((28, 28)), Flatten(), Dense(16), Dense(4096, "relu"), Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def study_in(folder: Path, build: Any = broad, sizes: list[int] = SIZES, **options: Any) -> Study:
    # Random, as what is proposed is not the subject.
    defaults = {"device": "cpu", "engine": "fused", "prune": False, "search": "random"}
    return Study(
        Task(build, some_mnist),
        SearchSpace(sizes, RATES),
        Goal(epochs=2),
        storage=str(folder / "studies.db"),
        options=Options(**(defaults | options)),
    )


def values(events: list[Event]) -> list[tuple[int, float, float | None]]:
    return [
        (event.figures.epoch, event.figures.value, event.figures.train_loss)
        for event in events
        if isinstance(event, Trained) and event.trial == 0
    ]


def notes(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Noted))


@pytest.mark.slow
def test_a_batch_that_memory_does_not_hold_is_trained_as_the_whole_one_is(tmp_path: Path) -> None:
    limited: list[Event] = []
    study = study_in(tmp_path, memory_limit=160 * MIB, accumulate=True)
    report = study.run(Budget(trials=2), tries=[LARGE], listener=limited.append)
    (opened,) = [event for event in limited if isinstance(event, Opened)]
    assert (opened.max_batch_size, opened.accumulate) == (512, True)
    assert report.trials == {"complete": 2}
    assert memory_sentences(report) == [
        "The largest batch size known to fit in memory of 160 MiB is 512; larger ones are trained in micro-batches."
    ]

    whole: list[Event] = []
    (tmp_path / "whole").mkdir()
    study_in(tmp_path / "whole", probe=False).run(Budget(trials=1), tries=[LARGE], listener=whole.append)
    assert values(limited) == [pytest.approx(figures, abs=1e-5) for figures in values(whole)]


@pytest.mark.slow
def test_what_the_study_did_its_confirmation_and_its_model_do_too(tmp_path: Path) -> None:
    study_in(tmp_path, sizes=[512, 4000], memory_limit=160 * MIB, accumulate=True).run(Budget(trials=1), tries=[LARGE])
    later = study_in(tmp_path, sizes=[512, 4000], memory_limit=160 * MIB)
    report = later.confirm(2)
    assert report.recommendation is not None and report.recommendation.batch_size == 4000
    assert report.confirmation is not None
    assert later.train(tmp_path / "best.keras").batch_size == 4000


@pytest.mark.slow
def test_what_runs_out_of_memory_goes_on_in_smaller_micro_batches(tmp_path: Path) -> None:
    """Not probed, so that nothing is known before it happens."""
    events: list[Event] = []
    study = study_in(tmp_path, memory_limit=160 * MIB, accumulate=True, probe=False)
    report = study.run(Budget(trials=1), tries=[LARGE], listener=events.append)
    assert "trial 0: 4000 examples at once ran out of memory; now 512 at once" in notes(events)
    assert [event.state for event in events if isinstance(event, TrialEnded)] == ["complete"]
    assert report.trials == {"complete": 1}


def test_a_model_whose_gradients_cannot_be_averaged_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def own_step(learning_rate: float) -> Any:
        import keras

        class Net(keras.Sequential):
            def train_step(self, data: Any) -> Any:
                return super().train_step(data)

        model = Net([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with pytest.raises(ModelError, match="--accumulate: this model cannot be trained in micro-batches, as it has a tr"):
        study_in(tmp_path, own_step, accumulate=True).run(Budget(trials=1))
    assert list(tmp_path.iterdir()) == []


def taking_four(learning_rate: float) -> Any:
    import keras

    layers = [keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.SGD(learning_rate, gradient_accumulation_steps=4)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.slow
def test_an_optimizer_that_accumulates_is_counted_by_the_examples_of_its_steps(tmp_path: Path) -> None:
    events: list[Event] = []
    study_in(tmp_path, taking_four, [64, 256]).run(
        Budget(trials=1), tries=[Configuration(256, 0.01)], listener=events.append
    )
    assert "which is trained as 4 batches of a part each" in notes(events)
    assert [event.figures.steps for event in events if isinstance(event, Trained)] == [15, 15]
    (other := tmp_path / "other").mkdir()
    with pytest.raises(InvalidInput, match="batch size 30: the optimizer takes 4 batches for a step"):
        study_in(other, taking_four, [30, 256]).run(Budget(trials=1))
    assert list(other.iterdir()) == []
