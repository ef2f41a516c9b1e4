"""Whether a machine tells what a study's goal counts, asked before anything is written."""

from __future__ import annotations

from batchopt.errors import InvalidInput
from batchopt.goals.kind import Kind
from batchopt.machine.machine import Machine
from batchopt.question.options import Options


def check_counted(kind: Kind, machine: Machine, options: Options) -> None:
    """Refuse a goal that counts what the machine, or one trial of several on it, does not tell.

    Args:
        kind: of the study's goal.
        machine: as its first worker describes it.
        options: how it is trained.

    Raises:
        InvalidInput: saying why, and what to do.
    """
    if why := kind.lacking(machine.device, machine.no_energy or no_counter(machine), machine.max_power_w):
        raise InvalidInput(why)
    if kind.cost_unit == "J" and machine.kind == "cpu" and (options.workers or 1) > 1:
        raise InvalidInput(
            f"--workers {options.workers}: the processor counts the energy of all workers together, so none knows its "
            "own. Use one for goal energy."
        )


def no_counter(machine: Machine) -> str:
    """What is said of a machine that nobody has looked at."""
    return "" if machine.energy else "nobody has looked for a counter of its energy"
