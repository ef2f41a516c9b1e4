"""What a worker says of an exception: whose code raised it, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import tensorflow as tf
from batchopt.errors import DataError
from batchopt.training.raised import failure, reason


def raised(call: Any, *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever it is
        call(*arguments)
    return caught.value


def script(text: str, tmp_path: Path, name: str = "script.py") -> dict[str, Any]:
    """What a user's file defines."""
    file = tmp_path / name
    file.write_text(text)
    content: dict[str, Any] = {}
    exec(compile(text, str(file), "exec"), content)
    return content


def in_process(code: str, tmp_path: Path) -> str:
    """The kind of failure of what code outside of any user's file raises."""
    text = f"from batchopt.training.raised import failure\ntry:\n    {code}\nexcept Exception as error:\n"
    text += "    error.__traceback__ = error.__traceback__.tb_next\n    print(failure(error).kind)\n"
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_error_is_the_users_only_where_its_code_was_running(tmp_path: Path) -> None:
    """Not a fault of our own, nor what a library raises between it and us."""
    broken = script("def build_model(rate):\n    return {}['units']\n", tmp_path)["build_model"]
    assert failure(raised(broken, 0.1)).kind == "task"
    ours = "from batchopt.question.task import take; take((1, 2), None)['x']"
    assert in_process(ours, tmp_path) == "training"
    theirs = "import numpy; numpy.linalg.inv(numpy.zeros((2, 2)))"
    assert in_process(theirs, tmp_path) == "training"


def test_the_users_code_is_found_where_autograph_raises_its_error_anew(tmp_path: Path) -> None:
    text = "def step(x):\n    if x > 0:\n        raise ValueError('no such layer')\n    return x\n"
    step = tf.function(script(text, tmp_path)["step"])
    error = raised(step, 1.0)
    error.__traceback__ = None
    assert failure(error).kind == "task"
    assert reason(error) == "no such layer"


def test_what_the_user_can_mend_or_the_machine_lacks_is_told_apart() -> None:
    assert failure(DataError("no file")).kind == "input"
    assert failure(MemoryError("no room")).kind == "memory"
    refusal = failure(optuna.TrialPruned("too wide"))
    assert (refusal.kind, refusal.error) == ("input", "ModelError")
    assert "too wide" in refusal.message and "middle of the space" in refusal.message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n\nreal reason\nmore", "real reason"),
        ("Graph execution error:\n\nDetected at node add defined at (most recent call last):\n"
         "<stack traces unavailable>\nNo registered 'PyFunc' OpKernel", "No registered 'PyFunc' OpKernel"),
        ("in user code:\n\n    File \"a.py\", line 3, in f\n        g()\n\n    ValueError: shapes differ\n",
         "shapes differ"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_the_reason_is_the_first_line_that_says_something(text: str, why: str) -> None:
    assert reason(ValueError(text)) == why
