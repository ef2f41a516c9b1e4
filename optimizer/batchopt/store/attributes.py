"""Every key that we write into attributes and constraints of Optuna studies and trials, spelled once."""

from __future__ import annotations

REFERENCE = "reference_machine"
"""User attribute of a study: the fingerprint of its reference machine."""


DIVERGED = "diverged"
"""User attribute of a trial whose loss was not finite."""

FAILURE = "failure"
"""User attribute of a trial that failed: why."""

DEATHS = "worker_deaths"
"""User attribute of a trial whose workers died: after how many epochs, and how many did then."""

GUID = "guid"
"""User attribute of a trial: its name in all databases that it is copied to."""

TRAIN_SECONDS = "train_seconds"
"""User attribute of a trial that has ended: seconds on the training clock, all epochs together."""

SUMMARY = (
    "compile_seconds",
    "deterministic",
    "engine",
    "epochs",
    "evaluation_seconds",
    "examples_per_second",
    "machine",
    "steps",
    "tensorflow",
    "train_loss",
    "train_value",
    "validation_loss",
    "value",
)
"""User attributes of a trial that has ended, for other programs and the dashboard: two thirds of a study's rows, which
nothing here reads back."""

MISSED = "target_not_reached_in_seconds"
"""User attribute of a trial that trained all its epochs and did not reach its goal's target: what it trained."""

MISSED_JOULES = "target_not_reached_in_joules"
"""The same where the goal counts joules."""

NO_VALUE = "no_value"
"""The constraint of a trial without a value: by how much its best accuracy falls short of the target."""

LEARNED_NOTHING = 1.0
"""What stands there for a trial that was ended before: as one that learned nothing."""

OUT_OF_MEMORY = "out of memory"
"""The note of a trial that did not fit."""

MEMORY = "memory"
"""The constraint of a trial: bytes above what the machine has."""


ELAPSED = "elapsed_seconds"
"""User attribute of a study: wall seconds of all its sessions."""

ENGINES = "engines"
"""User attribute of a study: the engine chosen on each machine, by the machine's fingerprint."""

MEMORY_LIMITS = "memory_limits"
"""User attribute of a study: `--memory-limit` as last given on each machine, in bytes, by its fingerprint."""

ACCUMULATE = "accumulate"
"""User attribute of a study: whether batches that memory does not hold are trained in micro-batches."""

PREFER = "prefer"
"""User attribute of a study: what is recommended in the end, where it was asked for."""

TOGETHER = 100
"""How many processes of one machine may begin in the same moment; of those in each other's way one gets through."""


ATTRIBUTE = "batchopt"
"""The user attribute of an Optuna study that holds its stamp."""

UNTRAINABLE = "untrainable"
"""User attribute of a trial whose configuration `build_model` refused: why."""

SERVICE = "service"
"""User attribute of a study: how the service was asked for it, so that a server that restarts opens it again."""

WINDOW = "window"
"""User attribute of a study: how many of the trials that have ended count, the newest; all where it is not there."""

TUNE = "tune"
"""User attribute of a study: what `batchopt tune` was first given, so that the study's name alone resumes it."""

LEASE = "lease"
"""User attribute of a trial: the last lease that the service gave for it, which tells a report sent twice from a late
one after the trial's end."""
