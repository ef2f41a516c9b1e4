"""Seeds of runs that confirm, and of the model that is kept: those of no trial."""

from __future__ import annotations

import numpy as np
from batchopt.training.seeds import (
    confirmation_rng,
    confirmation_seed,
    epoch_rng,
    model_rng,
    model_seed,
    trial_seed,
)


def test_what_confirms_begins_with_weights_that_no_trial_can_have() -> None:
    """A bit that no trial's seed has, so it is not a matter of luck."""
    trials = [trial_seed(study, trial) for study in range(20) for trial in range(50)]
    runs = [confirmation_seed(study, run) for study in range(20) for run in range(50)]
    assert max(trials) < 2**31 <= min(runs)
    assert max(runs) < 2**32
    assert len(set(runs)) == len(runs)


def test_what_confirms_sees_the_samples_in_an_order_of_its_own() -> None:
    def first(rng: np.random.Generator) -> tuple[int, ...]:
        return tuple(rng.permutation(1000)[:5])

    trials = {first(epoch_rng(3, trial, epoch)) for trial in range(10) for epoch in range(10)}
    runs = {first(confirmation_rng(3, run, epoch)) for run in range(10) for epoch in range(10)}
    assert not trials & runs
    assert len(runs) == 100
    assert first(confirmation_rng(3, 2, 1)) == first(confirmation_rng(3, 2, 1))


def test_the_model_that_is_kept_begins_and_sees_the_samples_as_no_trial_and_no_run_that_confirms() -> None:
    kept = [model_seed(study, 0) for study in range(200)]
    runs = {confirmation_seed(study, run) for study in range(200) for run in range(50)}
    assert all(2**31 <= seed < 2**32 for seed in kept)
    assert len(set(kept)) == len(kept)
    assert not runs & set(kept)
    orders = [rng(3, 0, 1).permutation(1000)[:5].tolist() for rng in (epoch_rng, confirmation_rng, model_rng)]
    assert orders[2] not in orders[:2]
