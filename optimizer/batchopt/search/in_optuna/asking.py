"""A trial that was asked for by halves: Optuna makes a trial first and writes its parameters one by one after."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import Trial

from batchopt.optuna_private import trial_id_of
from batchopt.question.space import SearchSpace


def finish_asking(study: Study, number: int, space: SearchSpace) -> None:
    """Sample what a running trial lacks, by the study's sampler; what it has, and what it was queued with, stays."""
    frozen = study.get_trials(deepcopy=False)[number]
    trial = Trial(study, trial_id_of(frozen))
    decided = {**trial.relative_params, **frozen.system_attrs.get("fixed_params", {})}
    for name, distribution in space.distributions().items():
        if name in frozen.params and name not in decided and not distribution.single():
            # What is drawn next is the draw after this one.
            study.sampler.sample_independent(study, frozen, name, distribution)
        if isinstance(distribution, IntDistribution):
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            trial.suggest_float(name, low, high, step=distribution.step, log=distribution.log)
        else:
            assert isinstance(distribution, CategoricalDistribution)
            trial.suggest_categorical(name, distribution.choices)
