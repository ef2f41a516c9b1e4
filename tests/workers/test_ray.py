"""A study whose workers are a Ray cluster's: what dies there is taken up again; what cannot be is said in a line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from batchopt.errors import InvalidInput, StorageError
from batchopt.question.options import Options
from batchopt.report.answer.reading import read_study
from batchopt.store.doctor.doctor import examine
from servers import missing

SCRIPT = [sys.executable, str(Path(__file__).parents[2] / "studies" / "mnist.py")]
SMALL = (
    "--device cpu --train-examples 20000 --epochs 8 --trials 1 --batch-sizes 8 --search random --no-pruning --no-probe"
)
PATIENCE_S = 500
"""On two cores with much else to do a cluster takes minutes to start, and a worker half a minute."""

T = TypeVar("T")


@pytest.fixture(autouse=True)
def ray_is_installed() -> None:
    if find_spec("ray") is None:
        missing("Ray is not installed")


def wait_for(look: Callable[[], T], process: subprocess.Popen[str]) -> T:
    """What is looked for, as soon as it is there; a process that has ended without it is not waited for."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        ended = process.poll() is not None
        if found := look():
            return found
        if ended:
            output, _ = process.communicate()
            raise AssertionError(f"exit code {process.returncode}: {output}")
        time.sleep(0.5)
    raise TimeoutError(f"after {PATIENCE_S} s")


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(nodes[0], allow_graceful=False)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
"""A head that has no CPUs to give, as KubeRay's, and two nodes, of which one dies when it is told a line."""

OWN_SCRIPT = """
import numpy as np
from batchopt import Dataset, Goal, SearchSpace, Task, run_script
from mnist import build_model

rng = np.random.default_rng(0)
images, labels = rng.random((4000, 28, 28), np.float32), rng.integers(0, 10, 4000)

run_script(
    Task(build_model, lambda path: Dataset(train=(images, labels))),
    SearchSpace([8], (1e-3, 1e-2)), Goal("best", epochs=12),
)
"""
"""Its data, 12 MB, goes with the question."""


@contextmanager
def study(storage: Path, *options: str, script: Sequence[str] = SCRIPT) -> Iterator[subprocess.Popen[str]]:
    command = [*script, *SMALL.split(), "--storage", str(storage), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            for left in (
                [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
            ):
                left.kill()


def epochs_of(storage: Path) -> int:
    try:
        return sum(len(trial.epochs) for trial in read_study(str(storage)))
    except StorageError:
        return 0


def under_way(storage: Path) -> set[int]:
    """The trials that have an epoch and no end: a worker may be at its second one before another has begun."""
    try:
        return {trial.number for trial in read_study(str(storage)) if trial.epochs and trial.state == "running"}
    except StorageError:
        return set()


def process_of(study: subprocess.Popen[str], word: str) -> psutil.Process | None:
    """The process below a study's whose command line has that word."""
    for process in psutil.Process(study.pid).children(recursive=True):
        try:
            if word in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            continue
    return None


@pytest.mark.slow
def test_what_is_killed_is_taken_up_again_and_an_interrupted_study_goes_on_without_the_cluster(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    with study(storage, "--ray", "local") as process:
        for word in ("batchopt.training.worker", "ray::Bridge", ""):
            before = epochs_of(storage)
            wait_for(lambda before=before: epochs_of(storage) > before, process)  # type: ignore[misc]
            if word:
                victim = process_of(process, word)
                assert victim is not None
                victim.kill()
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "the worker ended by signal SIGKILL" in output, output
    assert "the worker was lost: " in output, output
    _, left = psutil.wait_procs(below, timeout=20)
    assert [child.cmdline() for child in left] == []
    assert [trial.state for trial in read_study(str(storage))] == ["running"]
    with study(storage) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    (trial,) = read_study(str(storage))
    assert (trial.number, trial.state, [epoch["epoch"] for epoch in trial.epochs]) == (0, "complete", list(range(1, 9)))
    assert examine(str(storage)).findings == []


@pytest.mark.slow
def test_a_node_that_dies_is_a_worker_that_dies_and_the_others_go_on_without_it(tmp_path: Path) -> None:
    """Its trial is taken up elsewhere, though nobody knows whether there will be another node, and none comes."""
    storage, own = tmp_path / "studies.db", tmp_path / "own.py"
    own.write_text(OWN_SCRIPT)
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdin is not None and cluster.stdout is not None
        try:
            address = cluster.stdout.readline().strip()
            options = f"--ray {address} --trials 5 --train-examples 3000 --epochs 12 --lease 600"
            with study(storage, *options.split(), script=[sys.executable, str(own)]) as process:
                wait_for(lambda: len(under_way(storage)) == 2, process)
                cluster.stdin.write("\n")
                cluster.stdin.flush()
                assert cluster.stdout.readline().strip() == "removed"
                output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, output
        finally:
            below = psutil.Process(cluster.pid).children(recursive=True)
            cluster.kill()
            for left in below:
                with suppress(psutil.NoSuchProcess):
                    left.kill()
    assert "the worker was lost: " in output, output
    trials = read_study(str(storage))
    assert [(trial.number, trial.state) for trial in trials] == [(number, "complete") for number in range(5)]
    assert all([epoch["epoch"] for epoch in trial.epochs] == list(range(1, 13)) for trial in trials)
    assert examine(str(storage)).findings == []


@pytest.mark.slow
def test_what_a_cluster_cannot_give_is_said_before_anything_is_written(tmp_path: Path) -> None:
    folder, left = tmp_path / "studies", tmp_path / "ray"
    folder.mkdir()
    left.mkdir()
    # As a cluster that was killed has left it.
    (left / "ray_current_cluster").write_text("127.0.0.1:9")
    for options, said in {
        ("--ray", "local", "--ray-cpus", "4096"): "--ray local: no node has 4096 CPUs and 0 GPUs for a worker",
        ("--ray", "127.0.0.1:9"): "--ray 127.0.0.1:9: no Ray cluster answers there",
        ("--ray", "auto"): "--ray auto: no Ray cluster answers there",
        ("--ray", "ray://head:10001"): "--ray ray://head:10001: write auto, local, or the cluster's address",
    }.items():
        done = subprocess.run(
            [*SCRIPT, *SMALL.split(), "--storage", str(folder / "new.db"), *options],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=os.environ | ({"RAY_TMPDIR": str(tmp_path)} if "auto" in options else {}),
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ray_cpus": 2.0}, "--ray-cpus is for --ray"),
        ({"ray": "local", "ray_gpus": -1.0}, "--ray-gpus -1: give a number from 0"),
        ({"ray": "auto", "device": "gpu:0"}, "with --ray the cluster gives out GPUs"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Options(**options)  # type: ignore[arg-type]
