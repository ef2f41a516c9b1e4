"""What a user asks to be tried first, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from batchopt.errors import InvalidInput
from batchopt.question.options import Configuration
from batchopt.question.space import SearchSpace


def check_tries(tries: Sequence[Configuration], space: SearchSpace) -> None:
    """Refuse what is not in the search space.

    Raises:
        InvalidInput: naming it, and what is near.
    """
    low, high = space.learning_rate
    for size, rate in ((configuration.batch_size, configuration.learning_rate) for configuration in tries):
        if size < 1 or space.nearest_batch_size(size) != size:
            nearest = space.nearest_batch_size(max(size, 1))
            raise InvalidInput(
                f"--try {size}:{rate:g}: batch size {size} is not in the search space; the nearest is {nearest}."
            )
        if not low <= rate <= high:
            raise InvalidInput(
                f"--try {size}:{rate:g}: learning rate {rate:g} is outside the search space, {low:g} to {high:g}."
            )


def check_held(tries: Sequence[Configuration], largest: int | None) -> None:
    """Refuse what does not fit in memory; `largest` in examples, None where everything fits.

    Raises:
        InvalidInput: naming it, and what does fit.
    """
    for size in (configuration.batch_size for configuration in tries):
        if largest is not None and size > largest:
            raise InvalidInput(
                f"--try {size}: batch size {size} does not fit in the memory of this machine; {largest} does."
            )
