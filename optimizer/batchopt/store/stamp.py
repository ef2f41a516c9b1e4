"""The stamp of a study: the question it answers, kept with it, so that no other question is mixed in."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from optuna.study import Study

from batchopt.errors import StudyMismatch
from batchopt.goals.kinds import kind_of
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric, Target
from batchopt.question.space import SearchSpace, shown_space
from batchopt.question.task import ProgramStamp
from batchopt.store.attributes import ATTRIBUTE

PACKAGES = ("batchopt", "optuna", "sqlalchemy")


@dataclass(frozen=True)
class Stamp:
    """What makes a study this study.

    Attributes:
        space, goal, program: the question.
        seed, search: how it is searched, where a session does not say otherwise.
        versions: of the packages that wrote it.
    """

    space: SearchSpace
    goal: Goal
    program: ProgramStamp
    seed: int
    search: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What is watched."""
        return Metric(self.program.metric, self.program.direction)

    @property
    def target(self) -> Target | None:
        """What the metric is to get to, where the goal has a target."""
        return self.metric.target(self.goal.target)

    def write(self, study: Study) -> None:
        """Stamp a new study."""
        study.set_user_attr(
            ATTRIBUTE,
            {
                "space": self.space.describe(),
                "goal": self.goal.describe(),
                "program": asdict(self.program),
                "seed": self.seed,
                "search": self.search,
                "versions": dict(self.versions) or versions(),
            },
        )

    @classmethod
    def read(cls, study: Study) -> Stamp | None:
        """A study's stamp; None where it is another program's study."""
        stored = study.user_attrs.get(ATTRIBUTE)
        return None if stored is None else cls.of(stored)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Stamp:
        """A stamp from its JSON values."""
        return cls(
            space=SearchSpace.from_description(stored["space"]),
            goal=Goal(**stored["goal"]),
            program=ProgramStamp(**stored["program"]),
            seed=stored["seed"],
            search=stored["search"],
            versions=stored["versions"],
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that write the database."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def check_question(study: str, storage: str, stored: Stamp, space: SearchSpace, goal: Goal) -> None:
    """Refuse another space or goal.

    Raises:
        StudyMismatch: naming what differs, and what to do.
    """
    where = f"study {study!r} in {storage}"
    if space.describe() != stored.space.describe():
        searched, asked = shown_space(stored.space), shown_space(space)
        if searched == asked:
            # In a few words they are alike, so every word is needed.
            searched, asked = json.dumps(stored.space.describe()), json.dumps(space.describe())
        raise StudyMismatch(
            f"{where} searches {searched}; this script asks for {asked}. "
            "A study keeps its search space. Use --study another-name, or ask for the same space."
        )
    if goal != stored.goal:
        raise StudyMismatch(
            f"{where} has the goal {kind_of(stored.goal, stored.metric).words()}; this script asks for "
            f"{kind_of(goal, stored.metric).words()}. "
            "A study keeps its goal. Use --study another-name, or ask for the same goal."
        )


def check_seed(study: str, storage: str, stored: Stamp, seed: int | None) -> None:
    """Refuse another seed.

    Raises:
        StudyMismatch: naming both.
    """
    if seed is not None and seed != stored.seed:
        raise StudyMismatch(
            f"study {study!r} in {storage} has seed {stored.seed}; this script asks for {seed}. "
            "A study keeps its seed. Use --study another-name, or leave --seed out."
        )


def check_program(study: str, storage: str, stored: Stamp, program: ProgramStamp) -> None:
    """Refuse another model or other data.

    Raises:
        StudyMismatch: naming what differs, and what to do.
    """
    was, now = asdict(stored.program), asdict(program)
    # What a model computes says more than its config, but only to the versions that both were made with.
    known = stored.program.form and program.form and stored.program.made_with == program.made_with
    model = "form" if known else "model"
    differs = [
        name
        for name in (model, "data", "train_examples", "validation_examples", "metric", "direction")
        if was[name] != now[name]
    ]
    if differs:
        unnamed = {"model": "another model", "form": "another model", "data": "other data"}
        named = [unnamed.get(name, f"{name.replace('_', ' ')} {was[name]} and not {now[name]}") for name in differs]
        raise StudyMismatch(
            f"study {study!r} in {storage} was trained with {', '.join(named)}. "
            "A study keeps its program. Use --study another-name, or restore what was changed."
        )
