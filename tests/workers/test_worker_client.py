"""What a worker imports: the user's modules beside the script, and never one that only lies where the user stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STARTS_A_WORKER = """
import pickle
import sys

import beside
from batchopt.workers.process import ChildProcess

worker = ChildProcess("cpu")
try:
    # The worker unpickles what it is sent, which finds `beside` as it finds a function of the user's.
    worker.connection.send_bytes(pickle.dumps(beside.Asks()))
    print(worker.connection.recv().message)
finally:
    worker.kill()
"""

BESIDE = """
from importlib.util import find_spec

class Asks:
    def __reduce__(self):
        return answer, ()

def answer():
    from batchopt.errors import InvalidInput

    raise InvalidInput(" ".join(find_spec(name).origin for name in ("batchopt", "numpy", "keras", "tensorflow")))
"""


def origins(script: Path, cwd: Path) -> list[Path]:
    """Where a worker that a script starts finds what it is made of."""
    done = subprocess.run([sys.executable, str(script)], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [Path(word) for word in done.stdout.split()]


def test_no_module_in_the_current_folder_or_beside_the_script_stands_for_one_of_the_workers_own(tmp_path: Path) -> None:
    scripts, here = tmp_path / "scripts", tmp_path / "here"
    scripts.mkdir()
    here.mkdir()
    (scripts / "script.py").write_text(STARTS_A_WORKER)
    (scripts / "beside.py").write_text(BESIDE)
    for name in ("keras", "tensorflow"):
        # With a `numpy.py` of its own no script can start us.
        (scripts / f"{name}.py").write_text("raise ImportError('not this one')")
    for name in ("batchopt", "numpy", "keras", "beside"):
        (here / f"{name}.py").write_text("raise ImportError('not this one')")
    found = origins(scripts / "script.py", here)
    assert len(found) == 4
    assert not [path for path in found if tmp_path in path.parents]


def test_modules_in_the_current_folder_are_found_where_python_looks_there(tmp_path: Path) -> None:
    """A notebook, `python -c` and `python -m` have an empty name in `sys.path`."""
    (tmp_path / "beside.py").write_text(BESIDE)
    done = subprocess.run(
        [sys.executable, "-c", STARTS_A_WORKER], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and len(done.stdout.split()) == 4, done.stderr
