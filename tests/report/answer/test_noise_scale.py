"""The gradient noise scale of a study, from norms whose noise and signal are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from batchopt.report.answer.noise import gradient_noise
from batchopt.report.show.law_view import noise_sentences
from batchopt.store.history import TrialRecord

SMALL, BIG = 64, 1024


def row(epoch: int, signal: float | None, noise: float = 1.0) -> dict[str, Any]:
    """What a look sees in the mean: the signal, and the noise over the batch size; None where nobody looked."""
    sides = {"small": SMALL, "big": BIG}
    norms = {f"sq_norm_{side}": None if signal is None else signal + noise / size for side, size in sides.items()}
    sizes = {f"noise_{side}": None if signal is None else size for side, size in sides.items()}
    return {"epoch": epoch, "train_seconds": 2.0, "noise_seconds": None if signal is None else 0.02} | norms | sizes


def trial(number: int, rows: list[dict[str, Any]], state: str = "complete") -> TrialRecord:
    return TrialRecord(number, number, state, 64, 0.01, {}, 0.9, rows, "")


def test_noise_and_signal_are_averaged_before_they_are_divided() -> None:
    """Signals of 0.001 and 0.003 with noise of 1: 1 / 0.002, and not the mean of 1000 and 333."""
    found = gradient_noise([trial(0, [row(1, 0.001), row(2, None)]), trial(1, [row(1, 0.003)])])
    assert found is not None
    assert found.whole.scale == pytest.approx(500)
    assert (found.whole.trials, found.whole.looks) == (2, 2)
    assert found.whole.low is not None and found.whole.high is not None
    assert found.whole.low < 500 < found.whole.high
    assert found.cost == pytest.approx(0.04 / 6)


def test_it_is_told_by_epoch() -> None:
    found = gradient_noise([trial(number, [row(1, 0.002), row(2, None), row(3, 0.0005)]) for number in range(3)])
    assert found is not None
    assert {scale.epoch: scale.scale for scale in found.by_epoch} == pytest.approx({1: 500, 3: 2000})
    assert found.by_epoch[0].low == pytest.approx(500)
    (said,) = noise_sentences(found, 100.0)
    assert "measured in 3 trials, is 800 (90 % interval over trials 800 to 800)" in said
    assert "500 after epoch 1 and 2,000 after epoch 3: 8 times the fitted critical batch size." in said
    assert json.loads(json.dumps(asdict(found), allow_nan=False)) == asdict(found)


def test_one_trial_has_no_interval() -> None:
    found = gradient_noise([trial(0, [row(1, 0.002)], state="pruned"), trial(1, [row(1, None)])])
    assert found is not None
    whole = found.whole
    assert (whole.scale, whole.low, whole.high, whole.trials) == (pytest.approx(500), None, None, 1)


def test_where_no_signal_stands_out_there_is_no_number() -> None:
    found = gradient_noise([trial(0, [row(1, -0.0001)])])
    assert found is not None
    assert found.whole.scale is None
    assert noise_sentences(found, 100.0) == ["Gradient noise scale could not be estimated (no signal above the noise)."]


def test_without_a_look_nothing_is_said() -> None:
    assert gradient_noise([trial(0, [{"epoch": 1, "train_seconds": 2.0}]), trial(1, [])]) is None
    assert noise_sentences(None, 100.0) == []
