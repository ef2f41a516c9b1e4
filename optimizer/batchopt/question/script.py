"""The question that a study script asks, read from the script without running its study."""

from __future__ import annotations

import sys
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from batchopt.errors import BatchoptError, InvalidInput
from batchopt.question.goal import Goal
from batchopt.question.space import SearchSpace
from batchopt.question.task import Task
from batchopt.text import first_line


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
    token, ended = _asked.set(asked), ""
    main, arguments = sys.modules["__main__"], sys.argv
    # Functions of `__main__` travel to the worker by value, as they do from a script that is run.
    sys.modules["__main__"] = module = ModuleType("__main__", None)
    module.__file__ = str(script)
    # It stays: modules beside the script are to be found in the worker, too.
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv = [str(script)]
    try:
        # Of bytes, so that the script says in which encoding they are.
        exec(compile(script.read_bytes(), str(script), "exec"), module.__dict__)
    except SystemExit as end:
        ended = f" and ended with {end.code!r}" if end.code else ""
    except SyntaxError as error:
        if error.filename != str(script):
            raise _raised(script, error) from None
        raise InvalidInput(f"script {script}, line {error.lineno}: {error.msg}.") from None
    except ImportError as error:
        raise InvalidInput(f"script {script}: {first_line(error)}. Install it, or correct the script.") from None
    except BatchoptError:
        raise
    except Exception as error:  # noqa: BLE001  a script raises what it likes
        raise _raised(script, error) from None
    finally:
        sys.modules["__main__"], sys.argv = main, arguments
        _asked.reset(token)
    if not asked:
        raise InvalidInput(f"script {script} does not call run_script{ended}. Give the path of a study script.")
    return asked[0]


def _raised(script: Path, error: Exception) -> InvalidInput:
    """What a script raised, with its own frames alone."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    if frame is None:
        return InvalidInput(f"script {script} cannot be read: {first_line(error)}. Give the path of a study script.")
    shown = "".join(traceback.format_exception(type(error), error, frame))
    return InvalidInput(f"script {script} raised:\n{shown.rstrip()}")


def reference_script() -> Path:
    """The reference study, which is installed beside the program.

    Raises:
        InvalidInput: it is not.
    """
    package = Path(__file__).parents[1]
    # Installed, the scripts lie in the package; in a checkout, where they can be found and read.
    for folder in (package / "studies", package.parents[1] / "studies"):
        if (script := folder / "mnist.py").is_file():
            return script
    raise InvalidInput("the reference study is not installed. Give the path of a study script.")
