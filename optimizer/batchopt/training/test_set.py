"""The test set: looked at by runs that confirm a recommendation, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchopt.question.task import example_count
from batchopt.training.engines import EVALUATION_BATCH_SIZE
from batchopt.training.figures import Figures, flat
from batchopt.training.made import EVALUATION_BATCH_SIZE as MADE_EVALUATION_BATCH_SIZE
from batchopt.training.made import made
from batchopt.training.resident import from_host


def evaluate(model: Any, data: Any) -> Figures:
    """The metrics over data that stays on the host, by Keras' own loop."""
    if callable(data):
        batches = made(data, MADE_EVALUATION_BATCH_SIZE)
    elif isinstance(data, tuple):
        batches = from_host(data, np.arange(example_count(data)), EVALUATION_BATCH_SIZE)
    else:
        batches = data.batch(EVALUATION_BATCH_SIZE)
    return {name: float(value) for name, value in flat(model.evaluate(batches, verbose=0, return_dict=True)).items()}
