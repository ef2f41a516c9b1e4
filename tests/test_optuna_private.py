"""What is taken from Optuna beside its public names: there in the installed version, and used in one module alone."""

from __future__ import annotations

import ast
from pathlib import Path

import batchopt
import optuna
import pytest
import sqlalchemy as sa
from batchopt.optuna_private import (
    OPTUNAS_TABLES,
    TrialCache,
    figure_attribute,
    storage_of,
    study_id_of,
    trial_id_of,
)
from optuna_dashboard import save_plotly_graph_object
from plotly import graph_objects

PACKAGE = Path(batchopt.__file__).parent
THEIRS = {"_study_id", "_trial_id", "_storage", "_backend", "_cached_storage", "_rdb"}


def private_names(path: Path) -> set[str]:
    """Names of Optuna's that a module uses and that are not public."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found.update(part for part in parts if part.startswith("_"))
        own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if isinstance(node, ast.Attribute) and node.attr in THEIRS and not own:
            found.add(node.attr)
    return found


def test_one_module_alone_uses_them() -> None:
    users = {str(path.relative_to(PACKAGE)): private_names(path) for path in PACKAGE.rglob("*.py")}
    assert {path for path, names in users.items() if names} == {"optuna_private.py"}


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/studies.db")


def test_ids_are_those_of_the_database_and_the_tables_those_that_it_has(storage: optuna.storages.RDBStorage) -> None:
    optuna.create_study(storage=storage, study_name="first").add_trial(optuna.trial.create_trial(value=1.0))
    study = optuna.create_study(storage=storage, study_name="second")
    study.add_trial(optuna.trial.create_trial(value=2.0))
    with storage.engine.connect() as connection:
        trials, studies = OPTUNAS_TABLES["trials"], OPTUNAS_TABLES["studies"]
        query = sa.select(trials.c.trial_id, studies.c.study_id).join(studies, trials.c.study_id == studies.c.study_id)
        ids = connection.execute(query.where(studies.c.study_name == "second")).one()
    assert (trial_id_of(study.trials[0]), study_id_of(study)) == tuple(ids) == (2, 2)
    assert storage_of(study).get_n_trials(study_id_of(study)) == 1
    assert set(OPTUNAS_TABLES) <= set(sa.inspect(storage.engine).get_table_names())


def test_the_attribute_of_a_figure_is_where_the_dashboard_keeps_it(storage: optuna.storages.RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    save_plotly_graph_object(study, graph_objects.Figure(), graph_object_id="picture")
    attributes = storage_of(study).get_study_system_attrs(study_id_of(study))
    assert [name for name in attributes if name.startswith(figure_attribute("picture"))]
    assert not [name for name in attributes if name.startswith(figure_attribute("pict"))]


def test_the_cache_is_refreshed_before_each_look_and_reads_what_it_is_told(storage: optuna.storages.RDBStorage) -> None:
    looks: list[int] = []

    class Watched(TrialCache):
        def refresh(self, study_id: int) -> None:
            looks.append(study_id)
            with self.lock:
                self.read(study_id, set(), newest=-1 if len(looks) == 1 else 2)

    study = optuna.create_study(storage=storage)
    for _ in range(2):
        study.ask()
    seen = optuna.load_study(study_name=study.study_name, storage=Watched(storage))
    assert [trial.number for trial in seen.get_trials(deepcopy=False)] == [0, 1]
    assert looks and set(looks) == {study_id_of(study)}
    study.tell(1, 1.0)
    assert [trial.state.name for trial in seen.get_trials(deepcopy=False)] == ["RUNNING", "RUNNING"]
