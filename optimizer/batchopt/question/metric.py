"""The metric that a study watches: which way is better, and how its values are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from batchopt.errors import InvalidInput
from batchopt.text import printable

Direction = Literal["maximize", "minimize"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

VALIDATION = re.compile(r"^val(idation)?[_ /.-]", re.IGNORECASE)

ACCURACIES = re.compile(r"(^|[_ /.-])acc(uracy)?(_\d+)?$", re.IGNORECASE)
"""What Keras and others call a share of examples that are right, with an output's name before it or not."""

ROUNDING = 1e-3
"""By so much an accuracy may be above 1: a mean of weighted ones."""

LESS_IS_BETTER = re.compile(
    r"(^|[_ /.-])(loss|error|mae|mse|mape|msle|rmse|rmsle|smape|wape|nll|log_?loss|crossentropy|hinge|divergence|"
    r"poisson|huber|log_?cosh|brier\w*|distance|false_\w+|perplexity|wer|cer)(_\d+)?$",
    re.IGNORECASE,
)
MORE_IS_BETTER = re.compile(
    r"(^|[_ /.-])(acc|accuracy|auc|aucpr|auroc|precision\w*|recall\w*|sensitivity\w*|specificity\w*|f1\w*|"
    r"f_?beta\w*|f_?score|score|r2\w*|iou\w*|jaccard|dice\w*|kappa|mcc|map|ndcg|mrr|hits?\w*|bleu|rouge\w*|cosine_similarity|similarity|"
    r"psnr|ssim|true_\w+|likelihood|elbo|reward|return)(_\d+)?$",
    re.IGNORECASE,
)
"""Such names, as Keras and others have them."""

NEGATIVE = re.compile(r"(^|[_ /.-])(neg|negative|minus)[_ .-]", re.IGNORECASE)
"""What has been turned round."""


def named_direction(name: str) -> Direction | None:
    """Which way a metric is better, as far as its name tells; None where it does not."""
    less, more = LESS_IS_BETTER.search(name) is not None, MORE_IS_BETTER.search(name) is not None
    if not (less or more):
        return None
    return "minimize" if less != (NEGATIVE.search(name) is not None) else "maximize"


def direction_by(name: str, said: Direction | None, option: str) -> Direction:
    """Which way a metric is better that nothing is known of but its name, and what its user has said.

    Raises:
        InvalidInput: neither tells; naming the option to use.
    """
    found = said or named_direction(name)
    if found is None:
        raise InvalidInput(
            f"metric {name!r}: its name does not tell whether more or less of it is better. Add {option} maximize or "
            f"{option} minimize."
        )
    return found


@dataclass(frozen=True)
class Metric:
    """A metric, and the words and units of its values: percent and points for an accuracy, plain numbers for others.

    Attributes:
        name: as in Keras' logs, without `val_`.
        direction: whether more or less of it is better.
    """

    name: str = "accuracy"
    direction: Direction = "maximize"

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.direction == "maximize" else -1.0

    @property
    def is_accuracy(self) -> bool:
        """Whether its values are shares in 0 to 1."""
        return ACCURACIES.search(self.name) is not None

    @property
    def key(self) -> str:
        """What a trial's value is called in Optuna."""
        return f"validation_{self._plain}"

    @property
    def title(self) -> str:
        """Its name for people."""
        return printable(self._plain).replace("_", " ") if self.is_accuracy else printable(self._plain)

    @property
    def _plain(self) -> str:
        """Its name without what says that it is of the validation data, as jobs of other frameworks may call it."""
        return VALIDATION.sub("", self.name) or self.name

    @property
    def axis(self) -> str:
        """The title of an axis of `scaled` values."""
        return f"validation {self.title}{', %' if self.is_accuracy else ''}"

    @property
    def better(self) -> str:
        """What a value is called that is better."""
        return "higher" if self.direction == "maximize" else "lower"

    def score(self, value: float) -> float:
        """A value such that more is better."""
        return self.sign * value

    def best(self, values: Iterable[float]) -> float:
        """The best of some values, of which there is at least one."""
        return max(values, key=self.score)

    def limits(self, seen: Iterable[float]) -> tuple[float, float]:
        """Between which its values are: an accuracy's 0 and 1; an error's from 0, unless one below it was seen."""
        if self.is_accuracy:
            return 0.0, 1.0
        error = LESS_IS_BETTER.search(self.name) is not None and NEGATIVE.search(self.name) is None
        return (0.0 if error and min(seen, default=-1.0) >= 0 else -math.inf), math.inf

    def scaled(self, value: float) -> float:
        """A value, or a difference of values, as it is written: percent, or percentage points, of an accuracy."""
        return 100.0 * value if self.is_accuracy else value

    def shown(self, value: float | None) -> str:
        """A value: `97.26%`, or `0.08123`; a dash where there is none."""
        if value is None:
            return "-"
        return f"{value:.2%}" if self.is_accuracy else f"{value:.4g}"

    def shown_interval(self, low: float, high: float) -> str:
        """An interval: `96.86 to 97.60%`, or `0.0801 to 0.0824`."""
        return f"{100 * low:.2f} to {high:.2%}" if self.is_accuracy else f"{low:.4g} to {high:.4g}"

    def shown_change(self, difference: float) -> str:
        """A difference with its sign, for a table."""
        return f"{100 * difference:+.2f}" if self.is_accuracy else f"{difference:+.2g}"

    def shown_amount(self, difference: float) -> str:
        """A difference with its unit: `0.2 points`, or `0.0013`."""
        if not self.is_accuracy:
            return f"{difference:.2g}"
        points = f"{100 * difference:.2g}"
        return f"{points} point{'s'[points == '1' :]}"

    def check(self, value: float) -> None:
        """Refuse a value that was told in percent: all that is said of an accuracy would be wrong by a hundred.

        Raises:
            InvalidInput: it is an accuracy of more than 1.
        """
        if self.is_accuracy and value > 1 + ROUNDING:
            raise InvalidInput(
                f"{self.title} {value:g}: an accuracy is in 0 to 1. Tell {value / 100:g}, if it is in percent; or give "
                "the metric a name that is not an accuracy's."
            )

    def target(self, value: float | None) -> Target | None:
        """A target that its values may get to; None of None.

        Raises:
            InvalidInput: no value can be there.
        """
        if value is None:
            return None
        if self.is_accuracy and not 0 < value <= 1:
            raise InvalidInput(f"target {value:g}: {self.title} is in 0 to 1. Write 0.97 or 97%.")
        return Target(self, value)


@dataclass(frozen=True)
class Target:
    """What a metric is to get to.

    Attributes:
        metric: that it is of.
        value: in the metric's units.
    """

    metric: Metric
    value: float

    def __str__(self) -> str:
        """As users write it: `97%`, or `0.08`."""
        return f"{100 * self.value:.4g}%" if self.metric.is_accuracy else f"{self.value:.4g}"

    def met(self, value: float) -> bool:
        """Whether a value is there, or better; NaN is not."""
        return self.metric.score(value) >= self.metric.score(self.value)
