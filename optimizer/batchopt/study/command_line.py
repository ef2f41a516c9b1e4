"""A command with places for what a trial is, and how its output is read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from batchopt.errors import InvalidInput
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.study.jobs import Work

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}")

KNOWN = (BATCH_SIZE, LEARNING_RATE, "epochs", "trial", "from_epoch", "until_epoch", "checkpoint", "device")

OF_RESULTS = (BATCH_SIZE, LEARNING_RATE, "trial")
"""What the path of a file with results may have: not what differs from one process of a trial to its next."""


@dataclass(frozen=True)
class Command:
    """What is run for a trial, and how its output is read.

    Attributes:
        arguments: with `{batch_size}`, `{learning_rate}` and others of `KNOWN` where these go.
        metric: the key of the study's metric in lines of JSON.
        pattern: in the place of JSON, what finds it in a line: its group `value`, or else its first.
        results: the path of a file whose lines are read in the place of the output.
        extra: the names of further dimensions.

    Raises:
        InvalidInput: no command, a placeholder that is unknown or missing, or a pattern without a group.
    """

    arguments: tuple[str, ...]
    metric: str
    pattern: re.Pattern[str] | None = None
    results: str | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.arguments:
            raise InvalidInput(
                "no command is given. Write it after --, for example -- python train.py --bs {batch_size}."
            )
        program = self.arguments[0]
        if not placeholders(program) and shutil.which(program) is None:
            raise InvalidInput(f"command {program!r}: there is no such program, or it may not be run. Check its name.")
        if taken := set(KNOWN) & set(self.extra):
            raise InvalidInput(f"--extra {min(taken)}: the name is taken. Choose another one.")
        asked = placeholders(*self.arguments)
        if unknown := asked - {*KNOWN, *self.extra}:
            raise InvalidInput(f"placeholder {{{min(unknown)}}} is unknown. Use {', '.join((*KNOWN, *self.extra))}.")
        for name in (BATCH_SIZE, *self.extra):
            if name not in asked:
                raise InvalidInput(
                    f"the command has no {{{name}}}: every trial would train the same. Write it where it goes."
                )
        if "checkpoint" in asked and "until_epoch" not in asked:
            raise InvalidInput(
                "the command has {checkpoint} and no {until_epoch}: it would not end where its trial is paused. Write "
                "it where the last epoch goes."
            )
        if "checkpoint" not in asked and (early := asked & {"from_epoch", "until_epoch"}):
            raise InvalidInput(
                f"the command has {{{min(early)}}} and no {{checkpoint}}: it is never paused. Use {{epochs}}."
            )
        if self.results and (unknown := placeholders(self.results) - {*OF_RESULTS, *self.extra}):
            raise InvalidInput(f"--results {{{min(unknown)}}} is unknown. Use {', '.join((*OF_RESULTS, *self.extra))}.")
        if self.pattern is not None and not self.pattern.groups:
            raise InvalidInput(f"--read {self.pattern.pattern}: it has no group. Put the number into parentheses.")

    @property
    def resumes(self) -> bool:
        """Whether a trial of it can be paused."""
        return "checkpoint" in placeholders(*self.arguments)

    def filled(self, work: Work, *, epochs: int, device: str, checkpoint: str) -> tuple[list[str], str | None]:
        """The arguments of one step, and the path of its results.

        Nothing but a placeholder is changed, and no shell sees them.
        """
        step = work.step
        values = {name: _said(value) for name, value in step.extra.items()} | {
            BATCH_SIZE: str(step.batch_size),
            LEARNING_RATE: repr(float(step.learning_rate)),
            "epochs": str(epochs),
            "trial": str(step.trial),
            "from_epoch": str(work.from_epoch),
            "until_epoch": str(step.until_epoch),
            "checkpoint": checkpoint,
            "device": device,
        }
        arguments = [_fill(argument, values) for argument in self.arguments]
        return arguments, None if self.results is None else _fill(self.results, values)

    def value_in(self, line: str) -> tuple[float, float | None] | None:
        """The metric, and the seconds of the epoch where they are told, in a line of output; None in any other."""
        if self.pattern is not None:
            found = self.pattern.search(line)
            text = found and (found["value"] if "value" in self.pattern.groupindex else found[1])
            with suppress(TypeError, ValueError):
                return float(text or ""), None
            return None
        if not line.lstrip().startswith("{"):
            return None
        with suppress(ValueError, TypeError, RecursionError):
            told = json.loads(line)
            if self.metric in told:
                seconds = told.get("seconds")
                return float(told[self.metric]), None if seconds is None else float(seconds)
        return None


def placeholders(*texts: str) -> set[str]:
    """The names in braces."""
    return {name for text in texts for name in PLACEHOLDER.findall(text)}


def _fill(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _said(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)
