"""Seeds: of trials, of runs that confirm, of the model that is kept, of looks at gradients. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Purpose = Literal["search", "confirm", "model"]
"""What is trained for: a trial of the search, a run that confirms, the model that is kept."""

TRIAL_BITS = 31
"""Of a trial's seed."""

CONFIRMING, NOISE, MODEL = 1, 2, 3
"""Set what confirms, what looks at gradients, and the model that is kept, apart from trials in the tree of seeds that
begins at a study's."""


def confirmation_seed(study_seed: int, run: int) -> int:
    """The seed of a run's initial values, from the study's seed and the run's number alone.

    It has a bit more than any trial's, so it is none of theirs.
    """
    return _beside_trials(CONFIRMING, study_seed, run)


def confirmation_rng(study_seed: int, run: int, epoch: int) -> np.random.Generator:
    """The generator of an epoch's order of samples, from (study seed, run, epoch) alone."""
    return np.random.default_rng(np.random.SeedSequence([study_seed, run, epoch], spawn_key=(CONFIRMING,)))


def model_seed(study_seed: int, number: int) -> int:
    """The seed of the initial values of a model that is kept, from the study's seed and a number alone.

    It is no trial's, as it has a bit more, and drawn apart from those of runs that confirm: one of these is equal to it
    with a chance of 2^-31.
    """
    return _beside_trials(MODEL, study_seed, number)


def model_rng(study_seed: int, number: int, epoch: int) -> np.random.Generator:
    """The generator of an epoch's order of samples, from (study seed, number, epoch) alone."""
    return np.random.default_rng(np.random.SeedSequence([study_seed, number, epoch], spawn_key=(MODEL,)))


def _beside_trials(branch: int, study_seed: int, number: int) -> int:
    drawn = np.random.SeedSequence([study_seed, number], spawn_key=(branch,)).generate_state(1)[0]
    return 1 << TRIAL_BITS | int(drawn >> (32 - TRIAL_BITS))


def noise_rng(study_seed: int, trial: int, epoch: int) -> np.random.Generator:
    """The generator of the examples whose gradients are looked at after an epoch, from (study seed, trial, epoch)."""
    return np.random.default_rng(np.random.SeedSequence([study_seed, trial, epoch], spawn_key=(NOISE,)))


SEED_BITS = 31


def trial_seed(study_seed: int, trial: int) -> int:
    """The seed of a trial's initial values, from the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([study_seed, trial]).generate_state(1)[0] >> (32 - SEED_BITS))


def epoch_rng(study_seed: int, trial: int, epoch: int) -> np.random.Generator:
    """The generator of an epoch's order of samples, from (study seed, trial, epoch) alone."""
    return np.random.default_rng([study_seed, trial, epoch])


SEED_OF: dict[Purpose, Callable[[int, int], int]] = {
    "search": trial_seed,
    "confirm": confirmation_seed,
    "model": model_seed,
}
"""The seed of initial values, from the study's seed and a number."""

ORDER_OF: dict[Purpose, Callable[[int, int, int], np.random.Generator]] = {
    "search": epoch_rng,
    "confirm": confirmation_rng,
    "model": model_rng,
}
"""The generator of an epoch's order of samples, from the study's seed, a number and the epoch."""
