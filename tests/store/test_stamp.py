"""The stamp of a study: no other question is mixed in, and a refusal says what differs."""

from __future__ import annotations

import dataclasses

import optuna
import pytest
from batchopt import Goal, SearchSpace
from batchopt.errors import StudyMismatch
from batchopt.goals.kinds import kind_of
from batchopt.question.metric import Metric
from batchopt.question.space import shown_space
from batchopt.store.database import Database
from batchopt.store.stamp import Stamp, check_program, check_question, check_seed, versions
from optuna.distributions import FloatDistribution
from written_study import GOAL, PROGRAM, SPACE, STAMP, new_study


def test_a_stamp_is_read_back_as_it_was_written(database: Database) -> None:
    space = SearchSpace((1, 512), (0.01, 0.01), {"dropout": FloatDistribution(0.0, 0.5)})
    stamp = Stamp(space, Goal(epochs=7), PROGRAM, seed=11, search="qmc")
    stamp.write(optuna.create_study(storage=database.storage, study_name="stamped"))
    stored = Stamp.read(optuna.load_study(storage=database.storage, study_name="stamped"))
    assert stored == dataclasses.replace(stamp, versions=versions())
    assert {"python", "batchopt", "optuna", "sqlalchemy"} <= set(versions())


def test_a_stamp_names_kind_and_target_and_one_from_before_targets_reads_as_ever(database: Database) -> None:
    study = optuna.create_study(storage=database.storage, study_name="stamped")
    Stamp(SPACE, Goal("time", epochs=7, target=0.97), PROGRAM, seed=1, search="auto").write(study)
    assert study.user_attrs["batchopt"]["goal"] == {"kind": "time", "epochs": 7, "target": 0.97}
    stored = Stamp.read(study)
    assert stored is not None and stored.goal.target == 0.97
    with pytest.raises(StudyMismatch, match=r"has the goal time to 97% accuracy within 7 epochs; .* accuracy after 7"):
        check_question("stamped", "studies.db", stored, SPACE, Goal(epochs=7))
    assert STAMP.goal.describe() == {"kind": "best", "epochs": 2}
    STAMP.write(study)
    assert Stamp.read(study) == dataclasses.replace(STAMP, versions=versions())


def test_a_study_of_another_program_has_no_stamp(database: Database) -> None:
    assert Stamp.read(optuna.create_study(storage=database.storage)) is None


def test_the_same_question_is_let_in(database: Database) -> None:
    stored = Stamp.read(new_study(database))
    assert stored is not None
    check_question("mnist", "studies.db", stored, SPACE, GOAL)
    check_seed("mnist", "studies.db", stored, 3)
    check_seed("mnist", "studies.db", stored, None)
    check_program("mnist", "studies.db", stored, PROGRAM)


@pytest.mark.parametrize(
    ("space", "asks"),
    [
        (SearchSpace([16, 64, 512], (1e-4, 1e-1)), "asks for 3 batch sizes 16 to 512"),
        (SearchSpace((16, 256), (1e-4, 1e-1)), "asks for every batch size 16 to 256"),
        (SearchSpace([16, 64, 256], (1e-3, 1e-1)), "learning rates 0.001 to 0.1."),
        (SearchSpace([16, 64, 256], (1e-4, 1e-1), {"dropout": FloatDistribution(0, 1)}), "to 0.1, dropout."),
    ],
    ids=["sizes", "range", "rates", "extra"],
)
def test_another_space_is_refused_with_both(space: SearchSpace, asks: str) -> None:
    with pytest.raises(StudyMismatch) as refusal:
        check_question("mnist", "studies.db", STAMP, space, GOAL)
    said = str(refusal.value)
    assert "study 'mnist' in studies.db searches 3 batch sizes 16 to 256, learning rates 0.0001 to 0.1;" in said
    assert asks in said
    assert "Use --study another-name" in said


def test_two_spaces_that_differ_are_not_shown_alike() -> None:
    """Both have three batch sizes from 16 to 256; a refusal that shows them alike says nothing."""
    with pytest.raises(StudyMismatch) as refusal:
        check_question("mnist", "studies.db", STAMP, SearchSpace([16, 128, 256], (1e-4, 1e-1)), GOAL)
    searched, asked = str(refusal.value).split(". A study keeps")[0].split("; this script asks for ")
    assert searched.split(" searches ")[1] != asked


def test_another_goal_is_refused_with_both() -> None:
    with pytest.raises(StudyMismatch, match="accuracy after 2 epochs; this script asks for accuracy after 9 epochs"):
        check_question("mnist", "studies.db", STAMP, SPACE, Goal(epochs=9))


def test_another_seed_is_refused_with_both() -> None:
    with pytest.raises(StudyMismatch, match=r"has seed 3; this script asks for 4\..*leave --seed out"):
        check_seed("mnist", "studies.db", STAMP, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "another-hash"}, "was trained with another model. "),
        ({"data": "another-hash"}, "was trained with other data. "),
        ({"train_examples": 500}, "was trained with train examples 1000 and not 500. "),
        ({"metric": "auc"}, "was trained with metric accuracy and not auc. "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_program_is_refused_with_what_differs(change: dict[str, object], says: str) -> None:
    with pytest.raises(StudyMismatch) as refusal:
        check_program("mnist", "studies.db", STAMP, dataclasses.replace(PROGRAM, **change))
    assert says in str(refusal.value)
    assert "Use --study another-name" in str(refusal.value)
    assert "hash" not in str(refusal.value)


def test_what_a_model_computes_is_compared_where_the_same_versions_say_it() -> None:
    """Elsewhere, and in studies of before that was known, only its config is."""
    made = dataclasses.replace(PROGRAM, form="one", made_with="tensorflow 2, cpu")
    stored = dataclasses.replace(STAMP, program=made)
    with pytest.raises(StudyMismatch, match="was trained with another model"):
        check_program("mnist", "studies.db", stored, dataclasses.replace(made, form="two"))
    check_program("mnist", "studies.db", stored, dataclasses.replace(made, model="said otherwise"))
    check_program("mnist", "studies.db", stored, dataclasses.replace(made, form="two", made_with="tensorflow 3, cpu"))
    check_program("mnist", "studies.db", STAMP, made)
    with pytest.raises(StudyMismatch, match="was trained with another model"):
        check_program("mnist", "studies.db", STAMP, dataclasses.replace(made, model="another"))


def test_a_space_and_a_goal_are_shown_in_a_few_words() -> None:
    assert shown_space(SPACE) == "3 batch sizes 16 to 256, learning rates 0.0001 to 0.1"
    assert kind_of(GOAL, Metric()).words() == "accuracy after 2 epochs"
