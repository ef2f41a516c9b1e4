"""What was raised in a worker: by whose code, and why in one line; no TensorFlow."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from batchopt.errors import BatchoptError
from batchopt.training import surroundings
from batchopt.training.messages import Failed
from batchopt.training.out_of_memory import ModelTooLarge, is_out_of_memory

NO_REASON = re.compile(
    r"in user code:|graph execution error|detected at node|<?stack traces? unavailable|file \"", re.I
)
"""Lines with which Keras and TensorFlow begin, and that say nothing."""

QUOTED_FILE = re.compile(r'File "([^"]+)", line')
"""A frame as AutoGraph quotes it in a message: it raises the error anew, without the traceback."""

RAISED = re.compile(r"\s+(?:\w+\.)*\w*(?:Error|Exception|Warning): ")
"""How it quotes the error itself, below the frames."""


class Untrainable(Exception):
    """`build_model` raised `optuna.TrialPruned`: its configuration is not one to train."""


def failure(error: Exception) -> Failed:
    """An exception as an answer: by its type first, then by whose code raised, or by its text."""
    if isinstance(error, BatchoptError):
        return Failed("input", type(error).__name__, str(error))
    kind = type(error).__name__
    if is_out_of_memory(error):
        return Failed("model" if isinstance(error, ModelTooLarge) else "memory", kind, str(error) or kind)
    if is_pruned(error):
        return Failed(
            "input",
            "ModelError",
            f"build_model refuses the middle of the space ({reason(error)}), with which every worker is set up. "
            "Choose ranges whose middle can be trained.",
        )
    return Failed("task" if is_users(error) else "training", kind, "".join(traceback.format_exception(error)))


def is_pruned(error: BaseException) -> bool:
    """Whether it is `optuna.TrialPruned`, told without importing Optuna, which a worker has no other use for."""
    return any(kind.__name__ == "TrialPruned" and kind.__module__.startswith("optuna") for kind in type(error).__mro__)


def is_users(error: BaseException) -> bool:
    """Whether the user's code was running: a frame of the traceback, or of one quoted in the message, is its."""
    return any(surroundings.is_users(file) for file in _files(error))


def reason(error: BaseException) -> str:
    """Why, in one line: the message's first that says something."""
    text = str(error).strip()
    if text.startswith("in user code:"):
        text = RAISED.split(text)[-1]
    said = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in said if not NO_REASON.match(line)]
    return next(iter(reasons or said), type(error).__name__)


def _files(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from (frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if "in user code:" in str(error):
            yield from QUOTED_FILE.findall(str(error))
        error = error.__cause__ or error.__context__
