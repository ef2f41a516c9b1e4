"""What a script set beside its functions, read in the study's process and set again in each worker.

A worker does not run the script: it gets its functions. What the script set before, for instance at its top, as every
guide has it, would be missing there: a precision policy, `floatx`, a seed, how `tf.config` has functions run. Keras
and TensorFlow are looked at where the script has imported them, and are not imported for it.
"""

from __future__ import annotations

import functools
import json
import os
import random
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

WORKERS_OWN = {"CUDA_VISIBLE_DEVICES", "PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", "TMPDIR"}
"""Environment variables that a worker is started with, by whoever starts it."""

NAMES_SHOWN = 3

MOST_ITEMS = 100
"""Of a list or dict that is looked at."""


@dataclass(frozen=True)
class Surroundings:
    """What holds in a process beside the functions of a script.

    Attributes:
        keras, tensorflow: their settings by name; empty where the script has not imported them.
        seed: what `keras.utils.set_random_seed` was called with; None where it was not.
        random_states: of Python's `random` and of NumPy's `numpy.random`, which `load_data` may use.
        environment: variables that the process was not started with, or with another value.
        modules: of modules of the user's own, by name, what their names stand for.
        patched: what was put in the place of a library's own, by name.
    """

    keras: dict[str, Any]
    tensorflow: dict[str, Any]
    seed: int | None
    random_states: tuple[Any, Any]
    environment: dict[str, str]
    modules: dict[str, dict[str, str]]
    patched: tuple[str, ...]

    def restore(self) -> None:
        """Set all of it in this process, before TensorFlow is used; imports Keras where the script did."""
        os.environ.update(self.environment)
        if self.tensorflow:
            _set_tensorflow(self.tensorflow)
        if self.keras:
            _set_keras(self.keras, self.seed)
        random.setstate(self.random_states[0])
        np.random.set_state(self.random_states[1])

    def missing(self) -> list[str]:
        """What could not be carried, a line each: how modules of the user's own were changed after their import."""
        changed = [
            f"{module}.{name}"
            for module, names in _own_modules()
            for name, value in self.modules.get(module, {}).items()
            if names.get(name, value) != value
        ]
        lines = []
        for what, found in (
            ("the script has changed", sorted(changed)),
            ("the script has put something of its own in place of", sorted(self.patched)),
        ):
            if found:
                more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
                lines.append(
                    f"{what} {', '.join(found[:NAMES_SHOWN])}{more}: a worker imports modules anew and does not run "
                    "the script, so there it is as it was. Set it inside build_model or load_data."
                )
        return lines


def taken() -> Surroundings:
    """What holds in this process."""
    own = dict(_own_modules())
    return Surroundings(
        keras=_keras(),
        tensorflow=_tensorflow(),
        seed=_keras_seed(),
        random_states=(random.getstate(), np.random.get_state()),
        environment=_environment(),
        modules=own,
        patched=tuple(_patched({"__main__", *own})),
    )


def custom_objects() -> dict[str, Any]:
    """What the script has registered with Keras by a name, to travel with its functions."""
    keras = sys.modules.get("keras")
    return {} if keras is None or not hasattr(keras, "saving") else dict(keras.saving.get_custom_objects())


def register(objects: dict[str, Any]) -> None:
    """Register the script's objects with this process's Keras."""
    if objects:
        import keras

        keras.saving.get_custom_objects().update(objects)


def _keras() -> dict[str, Any]:
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(keras, "dtype_policies"):
        return {}
    config = keras.config
    return {
        "floatx": config.floatx(),
        "epsilon": config.epsilon(),
        "image_data_format": config.image_data_format(),
        "dtype_policy": keras.dtype_policies.serialize(config.dtype_policy()),
        "flash_attention": config.is_flash_attention_enabled(),
        "traceback_filtering": config.is_traceback_filtering_enabled(),
    }


def _set_keras(settings: dict[str, Any], seed: int | None) -> None:
    import keras

    config = keras.config
    config.set_floatx(settings["floatx"])
    config.set_epsilon(settings["epsilon"])
    config.set_image_data_format(settings["image_data_format"])
    config.set_dtype_policy(keras.dtype_policies.deserialize(settings["dtype_policy"]))
    if settings["flash_attention"] is not None:
        (config.enable_flash_attention if settings["flash_attention"] else config.disable_flash_attention)()
    (config.enable_traceback_filtering if settings["traceback_filtering"] else config.disable_traceback_filtering)()
    if seed is not None:
        keras.utils.set_random_seed(seed)


def _keras_seed() -> int | None:
    module = sys.modules.get("keras.src.utils.rng_utils")
    seed: int | None = None if module is None else module.get_random_seed()
    return seed


def _tensorflow() -> dict[str, Any]:
    """TensorFlow's settings, without initializing its devices, which are the workers' to use.

    What a public function would initialize them for is read from the context's own attributes.
    """
    tf, internal = sys.modules.get("tensorflow"), sys.modules.get("tensorflow.python.eager.context")
    config = sys.modules.get("tensorflow.python.framework.config")
    if tf is None or internal is None or config is None or not hasattr(tf, "config"):
        return {}
    context = internal.context()
    return {
        "run_functions_eagerly": tf.config.functions_run_eagerly(),
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "deterministic": config.is_op_determinism_enabled(),
        "seed": internal.global_seed(),
        "jit": getattr(context, "_optimizer_jit", None),
        "optimizer_options": dict(getattr(context, "_optimizer_experimental_options", None) or {}),
        "soft_placement": getattr(context, "_soft_device_placement", None),
        "intra_op_threads": getattr(context, "_intra_op_parallelism_threads", None),
        "inter_op_threads": getattr(context, "_inter_op_parallelism_threads", None),
    }


def _set_tensorflow(settings: dict[str, Any]) -> None:
    import tensorflow as tf

    tf.config.run_functions_eagerly(settings["run_functions_eagerly"])
    tf.config.experimental.enable_tensor_float_32_execution(settings["tensor_float_32"])
    if settings["deterministic"]:
        tf.config.experimental.enable_op_determinism()
    if settings["seed"] is not None:
        tf.random.set_seed(settings["seed"])
    if settings["jit"]:
        tf.config.optimizer.set_jit("autoclustering")
    if settings["optimizer_options"]:
        tf.config.optimizer.set_experimental_options(settings["optimizer_options"])
    if settings["soft_placement"] is not None:
        tf.config.set_soft_device_placement(settings["soft_placement"])
    if settings["intra_op_threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(settings["intra_op_threads"])
    if settings["inter_op_threads"]:
        tf.config.threading.set_inter_op_parallelism_threads(settings["inter_op_threads"])


def _environment() -> dict[str, str]:
    """What the process has set itself. A child inherits it; a node of a cluster has an environment of its own."""
    try:
        began = dict(
            entry.split("=", 1) for entry in Path("/proc/self/environ").read_text().split("\0") if "=" in entry
        )
    except OSError:
        return {}
    return {name: value for name, value in os.environ.items() if began.get(name) != value and name not in WORKERS_OWN}


def _own_modules() -> Iterator[tuple[str, dict[str, str]]]:
    """Modules that are neither Python's nor installed, and what their names stand for: plain values and functions."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in ("__main__", "__mp_main__") or not isinstance(file, str) or not is_users(file):
            continue
        content = vars(module).items()
        shown = {key: _shown(value) for key, value in content if not key.startswith("_")}
        yield name, {key: value for key, value in shown.items() if value is not None}


def is_users(file: str) -> bool:
    """Whether a file is the user's: not Python's, not installed, not ours; nor frozen, nor what AutoGraph generates."""
    return not file.startswith((*_installed(tuple(sys.path)), "<frozen ")) and "__autograph_generated_file" not in file


@functools.cache
def _installed(path: tuple[str, ...]) -> tuple[str, ...]:
    """Folders of what is installed, those of `PYTHONPATH` too that an installer has left its records in."""
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {site.getusersitepackages(), *site.getsitepackages(), str(Path(__file__).parents[1])}
    folders |= {folder for folder in path if folder and any(Path(folder).glob("*.dist-info"))} - own_folders()
    return tuple(f"{folder.rstrip('/')}/" for folder in folders)


def own_folders() -> set[str]:
    """The script's folder and the current one, absolute: what lies there is the user's, whatever else is beside it."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    return {os.getcwd(), *([os.path.dirname(os.path.abspath(main))] if main else [])}


def _shown(value: Any) -> str | None:
    """A plain value or a function in such a form that equal ones are equal; None of anything else."""
    if isinstance(value, FunctionType):
        # Not its code, which import hooks (pytest's, coverage's) change here and not there.
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, list | tuple | dict) and len(value) > MOST_ITEMS:
        return None
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _patched(own: set[str]) -> Iterator[str]:
    """Names of Keras, TensorFlow and NumPy, and of Keras' classes, that stand for something of the user's own."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in ("keras", "tensorflow", "numpy") or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, type | FunctionType) and value.__module__ in own:
                yield f"{name}.{key}"
            elif isinstance(value, type) and value.__module__ == name and name.startswith("keras."):
                for inner, method in list(vars(value).items()):
                    if isinstance(method, FunctionType) and method.__module__ in own:
                        yield f"{value.__module__}.{value.__name__}.{inner}"
