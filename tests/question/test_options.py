"""Options, budgets and what is written on a command line for them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchopt import Budget, Configuration, Goal, Options, SearchSpace, Study, Task
from batchopt.cli.parsing import parse_bytes, parse_configuration, parse_duration, parse_target
from batchopt.errors import InvalidInput
from batchopt.question.options import (
    AUTO_SEARCH,
    ENGINES,
    MAX_SEED,
    SEARCHES,
    check_budget,
    check_repeatable,
    parse_worth,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1d2h3m4s", 93_784),
        (" 10m ", 600),
        (" 90 ", 90),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_amounts_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["soon", "", " ", "s", "0", "0s", "0h0m", "-5", "-5s", "nan", "inf", "1e9", "10x", "1..2s", "30m1h", "1 h"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_duration(text)
    assert str(refusal.value) == f"--time-budget {text}: write 90s, 10m, or 1h30m."


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5gb", 1_500_000_000), ("100 KiB", 102_400), ("4096", 4096)],
)
def test_memory_is_a_number_of_bytes_or_an_amount_with_a_unit(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["much", "", "0", "-1GiB", "2XB", "GiB", "nan", "1e9"])
def test_what_is_no_memory_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_bytes(text)
    assert str(refusal.value) == f"--memory-limit {text}: write 2GiB, 512MiB, or a number of bytes."


@pytest.mark.parametrize(
    ("text", "target"),
    [("0.97", 0.97), ("97%", 0.97), (" 99.5 % ", 0.995), (".5", 0.5), ("1", 1.0), ("-1.5e-3", -0.0015)],
)
def test_a_target_is_a_number_or_a_percentage(text: str, target: float) -> None:
    assert parse_target(text) == pytest.approx(target)


@pytest.mark.parametrize(
    ("text", "a_second"),
    [("0.1 points per minute", 0.001 / 60), ("0.5 % per hour", 0.005 / 3600), (" 1%/h ", 0.01 / 3600), ("2 per s", 2)],
)
def test_what_a_step_must_be_worth_is_a_gain_over_a_time(text: str, a_second: float) -> None:
    assert parse_worth(text) == pytest.approx(a_second)


@pytest.mark.parametrize("text", ["0.1", "much per hour", "0 per hour", "-1 per hour", "1 per week", ""])
def test_what_is_no_worth_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_worth(text)
    examples = "write 0.1 points per minute, 0.5 % per hour, or 0.001 per second"
    assert str(refusal.value) == f"--worth {text}: {examples}."


@pytest.mark.parametrize(("search", "goal", "named"), [("tpe", "best", "--search tpe"), (None, "time", "--goal time")])
def test_a_worth_is_refused_where_no_gain_is_known(search: str | None, goal: str, named: str) -> None:
    check_budget(Options(), Budget(worth=1e-4), "best")
    with pytest.raises(InvalidInput, match=f"--worth excludes {named}"):
        check_budget(Options(search=search), Budget(worth=1e-4), goal)


@pytest.mark.parametrize("text", ["most", "", "nan", "inf", "%", "9 7"])
def test_what_is_no_target_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_target(text)
    assert str(refusal.value) == f"--target {text}: write 0.97 or 97%."


@pytest.mark.parametrize(
    ("text", "configuration"),
    [
        ("32:0.001", Configuration(32, 0.001)),
        ("1:1e-4", Configuration(1, 1e-4)),
        (" 32 : 0.001 ", Configuration(32, 0.001)),
    ],
)
def test_a_configuration_is_batch_size_and_learning_rate(text: str, configuration: Configuration) -> None:
    assert parse_configuration(text) == configuration


@pytest.mark.parametrize("text", ["junk", "", ":", "32", "32:", ":0.1", "32:x", "3.5:0.1", "32:0.1:5", "32,0.1"])
def test_what_is_no_configuration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_configuration(text)
    assert str(refusal.value) == f"--try {text}: write batch size and learning rate as 32:0.001."


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"search": "best"}, "--search best: unknown. Use auto, tpe, gp, random, grid or qmc."),
        ({"engine": "warp"}, "--engine warp: unknown. Use fused-xla, fused or fit."),
        ({"seed": -1}, f"--seed -1: give a whole number from 0 to {MAX_SEED}."),
        ({"seed": MAX_SEED + 1}, f"from 0 to {MAX_SEED}."),
        ({"workers": 0}, "--workers 0: give a whole number of at least 1."),
        ({"train_examples": 0}, "--train-examples 0: give a whole number of at least 1."),
        ({"device": "tpu"}, "--device tpu: write auto, cpu, gpu, or gpu:0,1."),
        ({"device": "gpu:"}, "--device gpu:: write"),
        ({"device": "gpu:x"}, "--device gpu:x: write"),
        ({"device": "gpu:0,"}, "--device gpu:0,: write"),
        ({"device": ""}, "--device : write"),
        ({"deterministic": True, "workers": 2}, "--deterministic excludes --workers above 1. Leave one of them out."),
        ({"deterministic": True, "ray": "local", "engine": "fused-xla"}, "excludes --ray and --engine fused-xla."),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_by_its_name(option: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Options(**option)
    assert says in str(refusal.value)


@pytest.mark.parametrize("device", ["auto", "cpu", "gpu", "gpu:0", "gpu:0,1", "gpu:10"])
def test_every_device_that_the_help_names_is_taken(device: str) -> None:
    assert Options(device=device).device == device


@pytest.mark.parametrize("name", [AUTO_SEARCH, *SEARCHES, *ENGINES])
def test_every_search_and_every_engine_is_taken(name: str) -> None:
    """One needs PyTorch, which is no dependency of ours, and says so."""
    if name == "gp" and find_spec("torch") is None:
        with pytest.raises(InvalidInput, match="needs PyTorch"):
            Options(search=name)
        return
    Options(**({"engine": name} if name in ENGINES else {"search": name}))


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"trials": 0}, "--trials 0"),
        ({"trials": -3}, "--trials -3"),
        ({"seconds": 0.0}, "--time-budget"),
        ({"seconds": -1.0}, "--time-budget"),
        ({"seconds": float("nan")}, "--time-budget"),
        ({"seconds": float("inf")}, "--time-budget"),
    ],
    ids=str,
)
def test_a_budget_that_ends_nothing_or_at_once_is_refused(budget: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Budget(**budget)


def test_a_deterministic_study_ends_by_trials_and_chooses_no_engine_by_the_clock() -> None:
    options = Options(deterministic=True, workers=1)
    assert options.pinned_engine == "fused"
    assert Options(deterministic=True, engine="fit").pinned_engine == "fit"
    check_repeatable(options, Budget(trials=3))
    with pytest.raises(InvalidInput, match=r"--deterministic excludes --time-budget: .* Use --trials\."):
        check_repeatable(options, Budget(trials=3, seconds=60.0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Options(workers=1.5), "--workers 1.5: give a whole number"),
        (lambda: Options(seed="3"), "--seed '3': give a whole number"),
        (lambda: Options(prune=1), "--prune 1: give True or False"),
        (lambda: Options(checkpoint_limit=-1), "--checkpoint-limit -1: give a whole number of at least 1"),
        (lambda: Options(memory_limit=10**30), "--memory-limit 1000000000000000000000000000000: .* at most"),
        (lambda: Options(lease=1e300), r"--lease 1e\+300: give 5 to 1e\+09 seconds"),
        (lambda: parse_bytes("999999999999999999TB"), "--memory-limit 999999999999999999TB: write 2GiB"),
        (lambda: Budget(1.5), "trials 1.5: give a whole number"),
        (lambda: Budget(10**20), "--trials 100000000000000000000: .* at most"),
        (lambda: Budget(seconds="10m"), "seconds '10m': give a number"),
        (lambda: Configuration("32", 0.1), "batch_size '32': give a whole number"),
        (lambda: Task(None, None), "build_model None: give a function"),
        (lambda: Task(print, print, metric=None), "metric None: give text"),
        (lambda: Goal("time", target="97%"), "target '97%': give a number"),
        (lambda: SearchSpace(32), "batch sizes 32: give"),
        (lambda: SearchSpace([10**30]), "is above"),
        (lambda: SearchSpace((16, 99999999999999999999999)), "is above"),
        (lambda: SearchSpace([32], "ab"), "learning rates 'ab': give"),
        (lambda: SearchSpace([32], extra={"units": 3}), "give Optuna distributions"),
        (lambda: Study(Task(print, print), SearchSpace([32]), name="\udcff"), r"--study '\\udcff'"),
        (lambda: Study(Task(print, print), SearchSpace([32]), name=""), "--study ''"),
        (lambda: Study(Task(print, print), SearchSpace([32]), name="x" * 600), "--study of 600 letters"),
    ],
)
def test_what_is_of_another_kind_or_size_is_refused_where_it_is_made(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_paths_and_numbers_of_numpy_are_taken_as_they_are(tmp_path: Path) -> None:
    options = Options(seed=np.int64(3), lease=5, data=tmp_path, checkpoints=tmp_path)
    assert (options.seed, options.data, options.checkpoints) == (3, str(tmp_path), str(tmp_path))
    study = Study(Task(print, print), SearchSpace(np.array([1, 2]), (np.float32(0.5), 1)), storage=tmp_path / "s.db")
    assert study.storage == str(tmp_path / "s.db")
