"""What users write on a command line, as values: 8..1024, 10m, 2GiB, 97%, 32:0.001."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from batchopt.errors import InvalidInput
from batchopt.question.options import MOST_BYTES, Configuration
from batchopt.question.space import SearchSpace, powers_of_two
from batchopt.text import first_line


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `10m`, `1.5h` or `1h30m`.

    Raises:
        InvalidInput: anything else, or nothing above 0.
    """
    number = r"(\d+(?:\.\d+)?)"
    pattern = rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s?)?"
    parts = re.fullmatch(pattern, text.strip())
    amounts = [float(part or 0) for part in parts.groups()] if parts else []
    seconds = sum(amount * unit for amount, unit in zip(amounts, (86_400, 3600, 60, 1), strict=False))
    if not seconds > 0:
        raise InvalidInput(f"--time-budget {text}: write 90s, 10m, or 1h30m.")
    return float(seconds)


def parse_bytes(text: str, option: str = "--memory-limit") -> int:
    """Bytes from `2GiB`, `512MiB`, `1.5GB` or a plain number of bytes; GB counts by thousands, GiB by 1024.

    Raises:
        InvalidInput: anything else, or nothing above 0.
    """
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", text.strip(), re.IGNORECASE)
    count = 0
    if parts:
        base = 1024 if parts[3] else 1000
        number = float(parts[1]) * base ** (" KMGT".index(parts[2].upper()) if parts[2] else 0)
        count = int(number) if number <= MOST_BYTES else 0
    if count < 1:
        raise InvalidInput(f"{option} {text}: write 2GiB, 512MiB, or a number of bytes.")
    return count


def parse_target(text: str) -> float:
    """A value of the validation metric from `0.97`, `97%` or `-1.5e-3`.

    Raises:
        InvalidInput: anything else.
    """
    number = text.strip()
    try:
        target = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise InvalidInput(f"--target {text}: write 0.97 or 97%.")
    return target


def parse_configuration(text: str) -> Configuration:
    """A configuration from `32:0.001`, batch size and learning rate.

    Raises:
        InvalidInput: anything else.
    """
    size, _, rate = text.partition(":")
    try:
        return Configuration(int(size), float(rate))
    except ValueError:
        raise InvalidInput(f"--try {text}: write batch size and learning rate as 32:0.001.") from None


def _space_function(
    space: SearchSpace, batch_sizes: str | None, learning_rates: str | None
) -> Callable[[int], SearchSpace]:
    """The script's space as the options change it; `full` waits for the number of training examples."""
    rates = space.learning_rate if learning_rates is None else parse_learning_rates(learning_rates)

    def make(train_examples: int) -> SearchSpace:
        sizes = space.batch_size if batch_sizes is None else parse_batch_sizes(batch_sizes, full=train_examples)
        return SearchSpace(sizes, rates, space.extra)

    return make


def parse_batch_sizes(text: str, *, full: int | None = None) -> tuple[int, int] | list[int]:
    """Batch sizes as written on a command line.

    Args:
        text: `8..1024` (powers of two, both ends included), `8..1024:int` (every integer), `16,32,64`, or `32`;
            `full` stands for the whole training set.
        full: the number of training examples, where it is known.

    Raises:
        InvalidInput: anything else, or `full` where it is not known.
    """

    def number(word: str) -> int:
        word = word.strip()
        if word == "full":
            if full is None:
                raise InvalidInput("batch size 'full': the number of training examples is not known here.")
            return full
        try:
            value = int(word)
        except ValueError:
            raise InvalidInput(
                f"--batch-sizes {text}: {word!r} is not a whole number. Write 8..1024, 1..full, or 16,32,64."
            ) from None
        if value < 1:
            raise InvalidInput(f"--batch-sizes {text}: {value} is below 1. A batch has at least one example.")
        return value

    body, _, kind = text.partition(":")
    if kind not in ("", "int"):
        raise InvalidInput(f"--batch-sizes {text}: {kind!r} is unknown after the colon; only ':int' is.")
    if ".." in body:
        low, high = (number(word) for word in body.split("..", 1))
        if low > high:
            raise InvalidInput(f"--batch-sizes {text}: reversed range. Write the smaller one first.")
        return (low, high) if kind == "int" else powers_of_two(low, high)
    if kind:
        raise InvalidInput(f"--batch-sizes {text}: ':int' goes with a range, as in 8..1024:int.")
    return [number(word) for word in body.split(",")]


def parse_learning_rates(text: str) -> tuple[float, float]:
    """Learning rates as written on a command line: `1e-4..1e-1`, or one rate.

    Raises:
        InvalidInput: not a number, not positive and finite, or a reversed range.
    """
    words: Sequence[str] = text.split("..", 1) if ".." in text else [text, text]
    try:
        low, high = (float(word) for word in words)
    except ValueError:
        raise InvalidInput(f"--learning-rates {text}: not a number. Write 1e-4..1e-1.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low > 0):
        raise InvalidInput(f"--learning-rates {text}: rates are finite and above 0.")
    if low > high:
        raise InvalidInput(f"--learning-rates {text}: reversed range. Write the smaller one first.")
    return low, high


def parse_extra(text: str) -> tuple[str, BaseDistribution]:
    """A further dimension from `width=16..512`, `dropout=0.0..0.5`, `decay=1e-6..1e-2:log` or `optimizer=adam,sgd`.

    Whole numbers at both ends make it one of whole numbers.

    Raises:
        InvalidInput: anything else.
    """
    name, _, body = text.partition("=")
    name, (body, _, kind) = name.strip(), body.strip().partition(":")
    if not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) or not body or kind not in ("", "log"):
        raise InvalidInput(f"--extra {text}: write width=16..512, decay=1e-6..1e-2:log, or optimizer=adam,sgd.")
    try:
        if ".." not in body:
            words = [word.strip() for word in body.split(",")]
            if len(words) < 2:
                raise ValueError("one value is no dimension; write LOW..HIGH, or several values")
            return name, CategoricalDistribution(words)
        low, high = body.split("..", 1)
        if all(re.fullmatch(r"\s*[+-]?\d+\s*", word) for word in (low, high)):
            return name, IntDistribution(int(low), int(high), log=bool(kind))
        return name, FloatDistribution(float(low), float(high), log=bool(kind))
    except ValueError as error:
        raise InvalidInput(f"--extra {text}: {first_line(error).rstrip('.')}.") from None
