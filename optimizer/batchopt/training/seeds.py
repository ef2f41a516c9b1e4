"""Seeds beside those of trials (`program.py`): of runs that confirm, of looks at gradients. No TensorFlow here."""

from __future__ import annotations

import numpy as np

TRIAL_BITS = 31
"""Of a trial's seed."""

CONFIRMING, NOISE = 1, 2
"""Set what confirms, and what looks at gradients, apart from trials in the tree of seeds that begins at a study's."""


def confirmation_seed(study_seed: int, run: int) -> int:
    """The seed of a run's initial values, from the study's seed and the run's number alone.

    It has a bit more than any trial's, so it is none of theirs.
    """
    drawn = np.random.SeedSequence([study_seed, run], spawn_key=(CONFIRMING,)).generate_state(1)[0]
    return 1 << TRIAL_BITS | int(drawn >> (32 - TRIAL_BITS))


def confirmation_rng(study_seed: int, run: int, epoch: int) -> np.random.Generator:
    """The generator of an epoch's order of samples, from (study seed, run, epoch) alone."""
    return np.random.default_rng(np.random.SeedSequence([study_seed, run, epoch], spawn_key=(CONFIRMING,)))


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
