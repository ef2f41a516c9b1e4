"""A trained model as Keras' own file."""

from __future__ import annotations

import json
from typing import Any

import keras

from batchopt.errors import InvalidInput, ModelError
from batchopt.training.figures import loss_of
from batchopt.training.program import Program
from batchopt.training.raised import reason


def check_savable(model: Any) -> None:
    """Refuse a model of which Keras cannot write what it is made of.

    Raises:
        ModelError: why.
    """
    try:
        # A layer's get_config raises what it likes.
        json.dumps(keras.saving.serialize_keras_object(model))
    except Exception as error:
        raise ModelError(
            f"Keras cannot save this model: {reason(error)}. Give what is your own in it a get_config() of JSON values."
        ) from error


def save(program: Program, path: str, metric: str) -> tuple[float | None, float]:
    """Write a program's model as `fit` would leave it: with averaged weights where its optimizer keeps such.

    It is not to be trained on afterwards, as its weights may be others.

    Args:
        program: whose model, in the state that training has reached.
        path: absolute; ends in .keras.
        metric: the study's.

    Returns:
        Validation loss, None where there is none that is known as such, and metric of what was written.

    Raises:
        InvalidInput: the file cannot be written.
    """
    model = program.model
    program.finish()
    figures = program.engine.evaluate()
    model.reset_metrics()
    try:
        model.save(path)
    except OSError as error:
        raise InvalidInput(f"model file {path}: {error.strerror or reason(error)}.") from error
    return loss_of(figures), figures[metric]
