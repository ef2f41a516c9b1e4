"""What an epoch, `list` and opening a study cost does not grow with the trials that have ended."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from batchopt.report.answer.reading import list_studies, read_study
from batchopt.study.finding import find
from benchmarks.growth import QUESTION, grow, joined, write_first
from written_study import MACHINE, epoch

FEW, MANY = 60, 900


def calls(action: Callable[[], object]) -> int:
    """How many functions are called meanwhile, Python's own included."""
    count = 0

    def note(*anything: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The same study with few and with many trials."""
    found = {}
    for size in (FEW, MANY):
        storage = str(tmp_path_factory.mktemp("grown") / "studies.db")
        write_first(storage)
        grow(storage, size)
        found[size] = storage
    return found


def cost_of_an_epoch(storage: str) -> int:
    with joined(storage) as session:
        step = session.ask()
        assert step is not None
        session.tell(step.trial, MACHINE, epoch(step.from_epoch + 1, 0.5), checkpoint=b"state")
        told = epoch(step.from_epoch + 1, 0.6)
        return calls(lambda: session.tell(step.trial, MACHINE, told, checkpoint=b"state"))


def cost_of_looking(storage: str) -> int:
    return calls(lambda: find("mnist", storage, lambda examples: QUESTION.space, QUESTION.goal, None))


@pytest.mark.parametrize(
    "cost", [cost_of_an_epoch, cost_of_looking, lambda storage: calls(lambda: list_studies(storage))]
)
def test_what_is_done_does_not_grow_with_the_number_of_finished_trials(
    cost: Callable[[str], int], sizes: dict[int, str]
) -> None:
    cost(sizes[FEW])  # imports, and what is compiled once
    assert cost(sizes[MANY]) < 1.2 * cost(sizes[FEW])


def test_the_answer_of_a_large_study_is_its_best_trial(sizes: dict[int, str]) -> None:
    """What is found by statements is what the trials say."""
    found = find("mnist", sizes[MANY], lambda examples: QUESTION.space, QUESTION.goal, None)
    trials = [trial for trial in read_study(sizes[MANY]) if trial.state == "complete"]
    best = max(trials, key=lambda trial: (trial.value, -trial.number))
    assert found is not None and found.best is not None
    assert (found.best.trial, found.best.value, found.best.batch_size) == (best.number, best.value, best.batch_size)
    assert found.best.train_seconds == best.train_seconds
