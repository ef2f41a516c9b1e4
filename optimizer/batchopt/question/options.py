"""How a study is searched and trained, beside its question: validated where it is made."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from batchopt.checked import check_types
from batchopt.errors import InvalidInput
from batchopt.measured import ENGINES, EngineName
from batchopt.question.goal import PREFERENCES, Prefer
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE

DEFAULT_TRIALS = 30
AUTO_SEARCH = "auto"
DEFAULT_SEED = 0
MAX_SEED = 2**32 - 1

CONFIRM_SEEDS = 5
"""Runs of each configuration that is confirmed: a t-interval narrows little with more."""

LEAST_CONFIRM_SEEDS = 2
"""An interval needs two."""

LEASE_SECONDS = 30.0
"""How long a trial belongs to its process without a word from it. Renewed at a third of this."""

MIN_LEASE_SECONDS = 5.0
"""A decision, or a slow write, may take some seconds, in which no lease is renewed."""

MOST = 1_000_000_000
"""No study has so many trials, nor waits for so many seconds."""

MOST_BYTES = 1 << 60
"""No device has so many, and every database can keep the number."""

CHECKPOINT_LIMIT = 64_000_000
"""Bytes of a trial's state that a database takes without complaint."""


@dataclass(frozen=True)
class Options:
    """Attributes are the options of a study script, under their names there.

    Attributes:
        search: `auto`, our own, or one of `SEARCHES`; None for the study's own, `auto` for a new one.
        seed: decides what is tried and how each trial begins; None for the study's own, 0 for a new one.
        prune: whether trials may be stopped, or put aside, before their last epoch.
        workers: worker processes; several on one processor share its cores. None for one on each GPU that `device`
            names, or one on a processor.
        device: `auto`, `cpu`, `gpu`, or `gpu:0,1`.
        engine: pins one; None to time them and choose.
        deterministic: whether a study, cut or not, is to come out the same to the last bit on this machine: by
            TensorFlow's deterministic ops, one worker, and step times that are measured once and kept.
        data: handed to the task's `load_data`.
        train_examples: train on so many examples; all where None.
        memory_limit: bytes of device memory that training may use; all there is where None.
        probe: whether the machine is measured: what is not recorded of it where None, anew where true, nothing where
            false.
        share: whether a GPU may be shared, with other studies or by several workers.
        accumulate: whether a batch that memory does not hold is trained in micro-batches of the largest size that fits,
            their gradients averaged; None for the study's own, no for a new one.
        prefer: what is recommended in the end, see `PREFERENCES`; None for the study's own, `balanced` for a new one.
        ray: train in a Ray cluster: `auto`, an address, or `local` for one that is started on this machine.
        ray_cpus, ray_gpus: what each worker gets there; None for a GPU and its part of the node's cores where there are
            GPUs, or else for a node.
        lease: seconds after which a trial that its process does not speak of is another's to take over.
        checkpoint_limit: bytes above which the state of an unfinished trial is kept in a file.
        checkpoints: the folder of such files, a path or an fsspec URL; beside an SQLite database where None.
        window: how many of the trials that have ended count, the newest, where data drifts; all where None.

    Raises:
        InvalidInput: naming the option and what to write.
    """

    search: str | None = None
    seed: int | None = None
    prune: bool = True
    workers: int | None = None
    device: str = "auto"
    engine: EngineName | None = None
    deterministic: bool = False
    data: str | None = None
    train_examples: int | None = None
    memory_limit: int | None = None
    probe: bool | None = None
    share: bool = False
    accumulate: bool | None = None
    prefer: Prefer | None = None
    ray: str | None = None
    ray_cpus: float | None = None
    ray_gpus: float | None = None
    lease: float = LEASE_SECONDS
    checkpoint_limit: int = CHECKPOINT_LIMIT
    checkpoints: str | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        for name in ("data", "checkpoints"):
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        check_types(self, option=True)
        at_least_one("--checkpoint-limit", self.checkpoint_limit)
        if self.search not in (None, AUTO_SEARCH, *SEARCHES):
            raise InvalidInput(f"--search {self.search}: unknown. Use {_one_of((AUTO_SEARCH, *SEARCHES))}.")
        if self.search == "gp" and find_spec("torch") is None:
            raise InvalidInput("--search gp: Optuna's GPSampler needs PyTorch. Install torch, or use --search auto.")
        if self.prefer not in (None, *PREFERENCES):
            raise InvalidInput(f"--prefer {self.prefer}: unknown. Use {_one_of(PREFERENCES)}.")
        if self.engine is not None and self.engine not in ENGINES:
            raise InvalidInput(f"--engine {self.engine}: unknown. Use {_one_of(ENGINES)}.")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InvalidInput(f"--seed {self.seed}: give a whole number from 0 to {MAX_SEED}.")
        if self.workers is not None:
            at_least_one("--workers", self.workers, MOST)
        if self.memory_limit is not None:
            at_least_one("--memory-limit", self.memory_limit)
        if self.window is not None:
            at_least_one("--window", self.window)
        if self.train_examples is not None:
            at_least_one("--train-examples", self.train_examples)
        if not MIN_LEASE_SECONDS <= self.lease <= MOST:
            raise InvalidInput(f"--lease {self.lease:g}: give {MIN_LEASE_SECONDS:g} to {MOST:g} seconds.")
        for name, amount in (("--ray-cpus", self.ray_cpus), ("--ray-gpus", self.ray_gpus)):
            if amount is not None and not 0 <= amount < math.inf:
                raise InvalidInput(f"{name} {amount:g}: give a number from 0.")
            if amount is not None and self.ray is None:
                raise InvalidInput(f"{name} is for --ray.")
        excluded = {
            "--workers above 1": (self.workers or 1) > 1,
            "--ray": self.ray is not None,
            # Asked for determinism, TensorFlow leaves XLA aside without a word.
            "--engine fused-xla": self.engine == "fused-xla",
        }
        if self.deterministic and any(excluded.values()):
            named = " and ".join(name for name, given in excluded.items() if given)
            raise InvalidInput(f"--deterministic excludes {named}. Leave one of them out.")
        if gpu_indices(self.device) and self.ray is not None:
            raise InvalidInput(
                f"--device {self.device}: with --ray the cluster gives out GPUs. Write gpu, cpu or auto."
            )

    @property
    def pinned_engine(self) -> EngineName | None:
        """The engine that is not chosen by a timing, which may come out one way or the other."""
        return "fused" if self.deterministic and self.engine is None else self.engine


@dataclass(frozen=True)
class Budget:
    """When a study ends: both are totals of the study, all its sessions together.

    Attributes:
        trials: how many trials; None where only time ends it.
        seconds: how much wall time; None where only trials end it.
        until_known: end earlier, once no step is expected to gain what matters; only `auto` can tell.
        worth: end earlier, once no step is expected to gain so much a second of training, in the units of the values;
            None where the user did not say.
    """

    trials: int | None = DEFAULT_TRIALS
    seconds: float | None = None
    until_known: bool = True
    worth: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.trials is not None:
            at_least_one("--trials", self.trials, MOST)
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InvalidInput(f"--time-budget {self.seconds}: give seconds above 0.")
        if self.worth is not None and not 0 < self.worth < math.inf:
            raise InvalidInput(f"worth {self.worth}: give what a second must gain, above 0, or None.")


@dataclass(frozen=True)
class Configuration:
    """One point of the search space, as a user names it.

    Attributes:
        batch_size: examples per optimizer step, at least 1.
        learning_rate: as applied, finite and above 0.
        extra: values of further dimensions, by name.

    Raises:
        InvalidInput: a batch size or a learning rate that cannot be.
    """

    batch_size: int
    learning_rate: float
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)
        if self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise InvalidInput(
                f"configuration {self.batch_size} x {self.learning_rate:g}: give a batch size of at least 1, and a "
                "learning rate that is finite and above 0."
            )

    @property
    def params(self) -> dict[str, Any]:
        """By the names of its dimensions."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}


def check_repeatable(options: Options, budget: Budget) -> None:
    """Refuse a budget that no two sessions use alike.

    Raises:
        InvalidInput: naming it, and what to write.
    """
    if options.deterministic and budget.seconds is not None:
        raise InvalidInput("--deterministic excludes --time-budget: no two sessions get equally far. Use --trials.")


def check_budget(options: Options, budget: Budget, goal: str) -> None:
    """Refuse a budget that the options or the goal exclude: only `auto` expects gains, and only of values.

    Raises:
        InvalidInput: naming what excludes it, and what to write.
    """
    check_repeatable(options, budget)
    if budget.worth is not None and options.search not in (None, AUTO_SEARCH):
        raise InvalidInput(f"--worth excludes --search {options.search}, which expects no gains. Use --search auto.")
    if options.deterministic and goal == "energy":
        raise InvalidInput("--deterministic excludes --goal energy: no two epochs draw the same. Use --goal time.")
    if budget.worth is not None and goal != "best":
        raise InvalidInput(f"--worth excludes --goal {goal}, whose gains have other units. Use --goal best.")


def check_confirm_seeds(seeds: int) -> None:
    """Refuse so few runs that they have no interval.

    Raises:
        InvalidInput: naming the least.
    """
    if seeds < LEAST_CONFIRM_SEEDS:
        raise InvalidInput(f"--confirm-seeds {seeds}: give at least {LEAST_CONFIRM_SEEDS}; an interval needs as many.")


def parse_worth(text: str) -> float:
    """Gain a second from `0.1 points per minute`, `0.5 % per hour`, or `0.001 per second`; points are hundredths.

    Raises:
        InvalidInput: anything else, or nothing above 0.
    """
    seconds = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
    pattern = rf"(\d*\.?\d+)\s*(points?|%)?\s*(?:per|/)\s*({'|'.join(seconds)})"
    parts = re.fullmatch(pattern, text.strip())
    worth = float(parts[1]) / (100 if parts[2] else 1) / seconds[parts[3]] if parts else 0.0
    if not worth > 0:
        raise InvalidInput(f"--worth {text}: write 0.1 points per minute, 0.5 % per hour, or 0.001 per second.")
    return worth


def at_least_one(name: str, value: int, most: int = MOST_BYTES) -> None:
    """Refuse a count below 1, or one that nothing has so many of.

    Raises:
        InvalidInput: naming the option.
    """
    if value < 1:
        raise InvalidInput(f"{name} {value}: give a whole number of at least 1.")
    if value > most:
        raise InvalidInput(f"{name} {value}: give a whole number of at most {most}.")


def _one_of(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def gpu_indices(device: str) -> tuple[int, ...] | None:
    """The GPUs that `--device` names: none for `cpu`, None for all there are (`auto`, `gpu`).

    Raises:
        InvalidInput: not `auto`, `cpu`, `gpu` or `gpu:0,1`.
    """
    if device in ("auto", "gpu"):
        return None
    if device == "cpu":
        return ()
    kind, _, numbers = device.partition(":")
    if kind == "gpu" and numbers and all(number.strip().isdigit() for number in numbers.split(",")):
        return tuple(int(number) for number in numbers.split(","))
    raise InvalidInput(f"--device {device}: write auto, cpu, gpu, or gpu:0,1.")


SEARCHES = ("tpe", "gp", "random", "grid", "qmc")
