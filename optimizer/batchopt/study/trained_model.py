"""A model that is kept: what it was trained with, and what it is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from batchopt.question.metric import Metric

On = Literal["train", "all"]
"""What a model is trained on: the training data, or the validation data too."""


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained and is kept; `describe` is its JSON, which lies beside it.

    Attributes:
        model: its file.
        study, storage: where the recommendation is from; a password is not shown.
        trials: how many had ended then.
        batch_size, learning_rate, extra: what was recommended.
        goal: of the study.
        epochs: how many it was trained.
        target_reached: whether the validation metric got to the goal's target; None without one, and on all data, where
            it cannot be told.
        on: the training data, or `all`: then the validation figures are of examples that it was trained on.
        seed: of its initial weights; no trial's.
        engine, machine, versions: that trained it.
        train_seconds: on the training clock.
        train_loss, train_value: over the last epoch, while it was trained.
        validation_loss, value: of the model as it is kept; values are of `metric`. None where there is none, or no
            finite one.
        data: fingerprint of training and validation data.
        train_examples, validation_examples: those that it was trained on, and validated.
        sha256: of the file.
    """

    model: str
    study: str
    storage: str
    trials: int
    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    goal: dict[str, Any]
    epochs: int
    target_reached: bool | None
    on: On
    seed: int
    engine: str
    machine: dict[str, Any]
    versions: dict[str, str]
    train_seconds: float
    metric: Metric
    train_loss: float | None
    train_value: float
    validation_loss: float | None
    value: float | None
    data: str
    train_examples: int
    validation_examples: int
    sha256: str

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
