"""The question that a study script asks, read from the script without running its study."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from optimizer.errors import InvalidInput
from optimizer.options import parse_target
from optimizer.search.space import SearchSpace
from optimizer.training.task import Goal, GoalKind, Task


@dataclass(frozen=True)
class Question:
    """What a study script hands to `run_script`."""

    task: Task
    space: SearchSpace
    goal: Goal


_asked: ContextVar[list[Question] | None] = ContextVar("asked", default=None)


def note(question: Question) -> bool:
    """Take a script's question instead of running its study, where it is being read; False where it is run."""
    asked = _asked.get()
    if asked is None:
        return False
    asked.append(question)
    return True


def read_question(script: Path) -> Question:
    """Run a study script up to its question.

    Raises:
        InvalidInput: there is no such script, or it asks none.
    """
    if not script.is_file():
        raise InvalidInput(f"script {script} does not exist. Give the path of a study script.")
    asked: list[Question] = []
    token = _asked.set(asked)
    main, path, arguments = sys.modules["__main__"], list(sys.path), sys.argv
    # Functions of `__main__` travel to the worker by value, as they do from a script that is run.
    sys.modules["__main__"] = module = ModuleType("__main__", None)
    module.__file__ = str(script)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script)]
    try:
        exec(compile(script.read_text(), str(script), "exec"), module.__dict__)
    except SystemExit:
        pass
    finally:
        sys.modules["__main__"], sys.path[:], sys.argv = main, path, arguments
        _asked.reset(token)
    if not asked:
        raise InvalidInput(f"script {script} does not call run_script. Give the path of a study script.")
    return asked[0]


def asked_goal(goal: Goal, kind: GoalKind | None, target: str | None, *, epochs: int) -> Goal:
    """A script's goal as `--goal`, `--target` and `--epochs` change it.

    Raises:
        InvalidInput: they do not belong together.
    """
    kind = kind or goal.kind
    wanted = parse_target(target) if target is not None else goal.target if kind == goal.kind else None
    return Goal(kind, epochs=epochs, target=wanted)


def reference_script() -> Path:
    """The reference study, which is installed beside the program.

    Raises:
        InvalidInput: it is not.
    """
    spec = find_spec("studies.mnist")
    if spec is None or spec.origin is None:
        raise InvalidInput("the reference study is not installed. Give the path of a study script.")
    return Path(spec.origin)
