"""The gradient noise scale of a study, from the gradients that were looked at while its trials trained.

It is the batch size at which the noise of a gradient equals its signal, and in theory near the critical batch size that
the steps to a target tell (McCandlish et al. 2018, arXiv:1812.06162). It grows as training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchopt.report.answer.intervals import mean_of
from batchopt.search.laws import gradient_noise_scale
from batchopt.store.history import TrialRecord


@dataclass(frozen=True)
class NoiseScale:
    """One gradient noise scale, of some trials together.

    Attributes:
        scale: in examples; None where no signal stands out of the noise.
        low, high: its 90 % interval over trials; None with one trial, or where leaving one out leaves no signal.
        trials: in how many it was measured.
        looks: how often.
        epoch: after how many epochs of training; None for all of them together.
    """

    scale: float | None
    low: float | None
    high: float | None
    trials: int
    looks: int
    epoch: int | None = None


@dataclass(frozen=True)
class GradientNoise:
    """What a study knows of the noise of its gradients.

    Attributes:
        whole: of all epochs that were looked at, together.
        by_epoch: of each epoch by itself, ascending.
        cost: seconds of looking, compilation included, in parts of all training seconds of the study.
    """

    whole: NoiseScale
    by_epoch: list[NoiseScale]
    cost: float


def gradient_noise(trials: Sequence[TrialRecord]) -> GradientNoise | None:
    """The noise scale of a study's trials, those that were stopped early included; None before the first look."""
    looks = [rows for rows in map(_looks, trials) if rows]
    if not looks:
        return None
    epochs = sorted({row["epoch"] for rows in looks for row in rows})
    spent = sum(row["noise_seconds"] or 0.0 for rows in looks for row in rows)
    return GradientNoise(
        whole=_scale(looks),
        by_epoch=[_scale([[row for row in rows if row["epoch"] == at] for rows in looks], at) for at in epochs],
        cost=spent / sum(trial.train_seconds for trial in trials),
    )


def _looks(trial: TrialRecord) -> list[Mapping[str, Any]]:
    needed = ("sq_norm_small", "sq_norm_big", "noise_small", "noise_big")
    return [row for row in trial.epochs if None not in map(row.get, needed)]


def _scale(looks: Sequence[Sequence[Mapping[str, Any]]], epoch: int | None = None) -> NoiseScale:
    """The scale of several trials' looks; its interval by leaving each trial out in turn (the jackknife)."""
    known = [rows for rows in looks if rows]
    count = len(known)
    whole = _ratio(known)
    low = high = None
    if whole is not None and count > 1:
        parts = [_ratio(known[:at] + known[at + 1 :]) for at in range(count)]
        pseudo = [count * math.log(whole) - (count - 1) * math.log(part) for part in parts if part is not None]
        mean = mean_of(pseudo)
        if len(pseudo) == count and mean is not None and mean.low is not None and mean.high is not None:
            low, high = math.exp(mean.low), math.exp(mean.high)
    return NoiseScale(whole, low, high, count, sum(map(len, known)), epoch)


def _ratio(looks: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """Noise over signal, each averaged over all looks first; None where either is not positive."""
    rows = [row for rows in looks for row in rows]
    first = rows[0]
    same = [row for row in rows if (row["noise_small"], row["noise_big"]) == (first["noise_small"], first["noise_big"])]
    small, big = (math.fsum(row[name] for row in same) / len(same) for name in ("sq_norm_small", "sq_norm_big"))
    scale = gradient_noise_scale(small, big, small=first["noise_small"], big=first["noise_big"])
    return scale if 0 < scale < math.inf else None
