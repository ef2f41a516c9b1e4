"""How a command ends: its exit codes, and one line for whatever the user can mend."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import click

from batchopt.cli.terminal import say
from batchopt.errors import BatchoptError, StorageFailed, TaskFailed, TrainingFailed, WorkerDied
from batchopt.signals import Interrupted

FAILED, USAGE_ERROR, HUNG_UP, BROKEN_PIPE = 1, 2, 129, 141
"""Exit codes; the last two are 128 and the signal's number."""


def _finish(command: click.Command) -> NoReturn:
    """Run a command, and end with its exit code, whoever reads its output or has stopped to."""
    try:
        code = _exit_code(command)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        code = BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # The terminal was closed, which a screen may notice before the signal comes. What is still to be flushed has
        # no reader.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        code = HUNG_UP
    sys.exit(code)


def _exit_code(command: click.Command) -> int:
    """Run a command; whatever the user can mend is one line and exit code 2, what failed on the way 1."""
    try:
        command.main(standalone_mode=False)
    except SystemExit as end:
        # Whoever has stopped reading is a failure to click.
        if isinstance(end.__context__, BrokenPipeError):
            return BROKEN_PIPE
        raise
    except click.ClickException as error:
        _say(error.format_message())
        return USAGE_ERROR
    except click.Abort:
        # Ctrl-C while nothing was under way.
        _say("interrupted.")
        return 130
    except Interrupted as interruption:
        _say("interrupted; everything finished is kept. Run the same command to resume.")
        return interruption.exit_code
    except TaskFailed as error:
        _say(f"your own code failed; everything finished is kept, and the same command goes on from there.\n{error}")
        return FAILED
    except BatchoptError as error:
        _say(f"{type(error).__name__}: {error}")
        return FAILED if isinstance(error, StorageFailed | TrainingFailed | WorkerDied) else USAGE_ERROR
    return 0


def _say(text: str) -> None:
    say(text.rstrip(), err=True)
