"""Batch sizes of a ladder for samplers that know only ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from batchopt.question.space import BATCH_SIZE, SearchSpace


class LadderSampler(BaseSampler):
    """Any sampler, its batch sizes moved to the nearest of the space's ladder that the machine holds.

    Optuna knows the batch size as one integer range that never changes; what is stored is what was trained.
    """

    def __init__(self, base: BaseSampler, space: SearchSpace, max_batch_size: int | None = None) -> None:
        self._base = base
        self._space = space
        self._max_batch_size = max_batch_size

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        params = self._base.sample_relative(study, trial, search_space)
        return {name: self._snap(name, value) for name, value in params.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._base.sample_independent(study, trial, param_name, param_distribution)
        return self._snap(param_name, value)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._base.reseed_rng()

    def _snap(self, name: str, value: Any) -> Any:
        return largest_held(self._space, value, self._max_batch_size) if name == BATCH_SIZE else value


def largest_held(space: SearchSpace, batch_size: float, max_batch_size: int | None) -> int:
    """The batch size of the space that is nearest by ratio among those up to `max_batch_size`, in examples."""
    nearest = space.nearest_batch_size(batch_size)
    if max_batch_size is None or nearest <= max_batch_size:
        return nearest
    if isinstance(space.batch_size, tuple):
        return max(space.smallest, max_batch_size)
    return max((size for size in space.batch_size if size <= max_batch_size), default=space.smallest)


class FixedSampler(RandomSampler):
    """Gives a trial the values that were decided for it."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(seed=0)
        self._params = params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._params[param_name]
