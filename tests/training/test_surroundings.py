"""What a script sets beside its functions holds in the worker, and their source is found there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from batchopt.training.surroundings import is_users

SCRIPT = """
import json, os, random, sys
import numpy as np
import helpers, keras
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.workers.client import Worker
from batchopt.training.messages import Ready, Remark, Setup

keras.mixed_precision.set_global_policy("mixed_bfloat16")
keras.config.set_floatx("float64")
keras.config.set_epsilon(1e-5)
keras.config.set_image_data_format("channels_first")
keras.utils.set_random_seed(7)
np.random.rand(3)
tf.config.experimental.enable_tensor_float_32_execution(False)
tf.config.optimizer.set_experimental_options({"constant_folding": False})
os.environ["SET_BY_THE_SCRIPT"] = "yes"
keras.saving.get_custom_objects()["doubled"] = lambda x: 2 * x
helpers.DROPOUT = 0.5
keras.activations.relu = lambda x: x

def found():
    policy = keras.config.dtype_policy()
    return {
        "policy": policy.name,
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "format": keras.config.image_data_format(),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "options": tf.config.optimizer.get_experimental_options(),
        "variable": os.environ.get("SET_BY_THE_SCRIPT"),
        "registered": "doubled" in keras.saving.get_custom_objects(),
        "draws": [random.random(), np.random.rand(), float(tf.random.uniform(())), float(keras.random.uniform(()))],
    }

def load_data(path):
    def flip(x, y):
        if tf.reduce_sum(x) > 0:
            x = -x
        return x, y
    with open("worker.json", "w") as file:
        json.dump(found(), file)
    x = np.random.rand(40, 12).astype("float32")
    stream = tf.data.Dataset.from_tensor_slices((x, x[:, :3].argmax(1))).map(flip)
    return Dataset(train=stream, validation=(-x, x[:, :3].argmax(1)))

@tf.function
def halved(x):
    while tf.reduce_max(x) > 1:
        x = x / 2
    return x

def build_model(learning_rate):
    halved(tf.constant(8.0)), helpers.DROPOUT
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

worker = Worker(Setup(Task(build_model, load_data), None, None, "cpu", None, "fit", 1e-3))
while isinstance(answer := worker.receive(), Remark):
    print(answer.text)
worker.kill()
assert isinstance(answer, Ready), answer
with open("parent.json", "w") as file:
    json.dump(found(), file)
"""


def test_what_a_script_sets_at_its_top_holds_in_the_worker_and_what_cannot_is_said(tmp_path: Path) -> None:
    """Precision, floatx, seeds, what `tf.config` was told, variables, registered objects; AutoGraph has its source."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helpers.py").write_text("DROPOUT = 0.1\nUNITS = 8\ndef f():\n    return {1, 2}\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here, there = (json.loads((tmp_path / f"{who}.json").read_text()) for who in ("parent", "worker"))
    assert there == here
    assert there["policy"] == "mixed_bfloat16"
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "the script has changed helpers.DROPOUT",
        "the script has put something of its own in place of keras.activations.relu",
    ]


def test_packages_that_pythonpath_leads_to_are_installed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install --target`, environment modules: not the user's, unless they lie where the user works."""
    elsewhere, beside, here = (tmp_path / name for name in ("site", "helpers", "here"))
    for folder in (elsewhere, here):
        (folder / "numpy-2.4.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", ["", str(elsewhere), str(beside), str(here), *sys.path])
    monkeypatch.chdir(here)
    assert [is_users(f"{folder}/module.py") for folder in (elsewhere, beside, here)] == [False, True, True]


OTHER_PROCESS = """
import inspect, pickle, traceback
from batchopt.training.by_value import remember
content, sources = pickle.load(open("packed", "rb"))
remember(sources)
function = pickle.loads(content)
print(inspect.getsource(function))
try:
    function(0)
except ZeroDivisionError as error:
    print("".join(traceback.format_exception(error)))
"""


@pytest.mark.parametrize("kind", ["script", "notebook", "executed text"])
def test_source_and_tracebacks_of_functions_are_found_where_they_travel_to(kind: str, tmp_path: Path) -> None:
    """Of a script, even one that has changed since; of a notebook's cell; of text that was executed."""
    text = "def inverse(x):\n    return 1 / x  # of nothing\n"
    tail = "import pickle\nfrom batchopt.training.by_value import packed\n"
    tail += "pickle.dump(packed(inverse), open('packed', 'wb'))"
    if kind == "script":
        script = text + tail
    elif kind == "notebook":
        # As IPython does: a file that is none, and its lines told to linecache.
        lines = f"{text!r}.splitlines(True)"
        script = f"import linecache\nlinecache.cache['<cell 1>'] = (1, None, {lines}, '<cell 1>')\n"
        script += f"exec(compile({text!r}, '<cell 1>', 'exec'))\n{tail}"
    else:
        (tmp_path / "part.py").write_text(text)
        script = f"exec(compile(open('part.py').read(), 'part.py', 'exec'))\n{tail}"
    (tmp_path / "script.py").write_text(script)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True)
    for name in ("script.py", "part.py"):
        (tmp_path / name).write_text("# another text\n" * 3)
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(text), done.stderr
    assert done.stdout.count("return 1 / x  # of nothing") == 2


def test_reading_them_imports_neither_keras_nor_tensorflow() -> None:
    code = "import sys; from batchopt.training.surroundings import taken; taken(); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
