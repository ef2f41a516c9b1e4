"""What MLflow and TensorBoard keep of a study, read back by themselves."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from batchopt.errors import InvalidInput
from batchopt.events import Event, Noted, Opened, Stepped, Trained, TrialEnded
from batchopt.measured import Epoch
from batchopt.question.metric import Metric
from batchopt.report.show.trackers import MLflow, TensorBoard, Tracker
from batchopt.search.steps import Step
from commands import run_command
from written_study import MACHINE

METRIC = Metric("val_loss", "minimize")


def told(number: int, value: float) -> Trained:
    return Trained(0, Epoch(number, 0.5, math.nan, None, value, 2.0, 0.0, 10, 5.0), 0.0)


def begun() -> list[Event]:
    opened = Opened("mine", "s.db", MACHINE, "fused", (), 2, METRIC, 4, 0, 0)
    return [opened, Stepped(Step(0, 64, 0.01, until_epoch=2, extra={"width": 9}))]


def ended(state: str = "complete") -> TrialEnded:
    return TrialEnded(0, state, 64, 0.01, METRIC, 0.25, 2, 4.0)


def hear(tracker: Tracker, *events: Event) -> list[Event]:
    heard: list[Event] = []
    for event in events:
        tracker.behind(heard.append)(event)
    return heard


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
def test_each_trial_is_a_run_of_mlflow_that_a_resumed_study_goes_on_in(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert hear(MLflow(uri), *begun(), told(1, 0.5)) == [*begun(), told(1, 0.5)]
    # Another process takes the trial up.
    hear(MLflow(uri), *begun(), told(2, 0.25), ended())
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"batch_size": "64", "learning_rate": "0.01", "width": "9"}
    assert (run.info.run_name, run.info.status) == ("trial 0", "FINISHED")
    assert [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "val_loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    assert run.data.metrics["train_seconds"] == 2.0


def test_each_trial_is_a_run_of_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hear(TensorBoard(tmp_path), *begun(), told(1, 0.5))
    hear(TensorBoard(tmp_path), *begun(), told(2, 0.25), ended())
    read = EventAccumulator(str(tmp_path / "mine" / "trial 0")).Reload()
    assert [(each.step, each.value) for each in read.Scalars("val_loss")] == [(1, 0.5), (2, 0.25)]
    assert {"batch_size", "learning_rate", "width", "train_seconds", "train_loss"} <= set(read.Tags()["scalars"])
    assert read.Scalars("batch_size")[0].value == 64


@pytest.mark.parametrize(("kind", "package"), [(MLflow, "mlflow"), (TensorBoard, "tensorboard")])
def test_what_is_not_installed_is_said_in_a_line(
    kind: type[Tracker], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python has it where a package is not there; here it may be.
    for name in {package, *(loaded for loaded in sys.modules if loaded.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInput, match=rf"pip install 'batchopt\[{package}\]'"):
        kind()


class Broken(Tracker):
    """One whose server is away."""

    def begin(self, trial: int, params: object) -> None:
        raise ConnectionError("no route to host")

    def tell(self, trial: int, epoch: int, figures: object) -> None:
        raise AssertionError("it is told no more")

    end = tell


def test_a_tracker_that_fails_is_said_once_and_the_study_goes_on() -> None:
    heard = hear(Broken(), *begun(), told(1, 0.5), ended())
    (said,) = (event for event in heard if isinstance(event, Noted))
    assert said == Noted("Broken is told no more of this study: no route to host", warning=True)
    assert [event for event in heard if event is not said] == [*begun(), told(1, 0.5), ended()]


SCRIPT = """
from batchopt import Goal, SearchSpace, Task, {kind}, run_script
from mnist import build_model, load_mnist
run_script(Task(build_model, load_mnist), SearchSpace([32, 256]), Goal(epochs=2), trackers=[{made}])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
@pytest.mark.parametrize(
    ("kind", "made"), [("MLflow", "MLflow('sqlite:///m.db')"), ("TensorBoard", "TensorBoard('runs')")]
)
def test_one_line_of_a_study_script_has_all_of_its_trials_tracked(tmp_path: Path, kind: str, made: str) -> None:
    folder = Path(__file__).parents[3] / "studies"
    (tmp_path / "study.py").write_text(
        f"import sys; sys.path.append({str(folder)!r})" + SCRIPT.format(kind=kind, made=made)
    )
    small = ["--train-examples", "2000", "--trials", "3", "--device", "cpu", "--no-probe", "--engine", "fused"]
    done = run_command([str(tmp_path / "study.py"), *small], tmp_path)
    assert done.returncode == 0 and "is told no more" not in done.stderr + done.stdout, done.stderr
    if kind == "TensorBoard":
        assert len(list((tmp_path / "runs" / "study").iterdir())) == 3
        return
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert len(runs) == 3 and {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
