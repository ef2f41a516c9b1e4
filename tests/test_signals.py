"""Signals that ask a study to end, really sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from batchopt.signals import Interrupted, Interruption
from scripts import findable


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_noted_and_raised_when_it_is_looked_for(number: signal.Signals, exit_code: int) -> None:
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as raised:
            interruption.check()
    assert raised.value.exit_code == exit_code


def test_a_study_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_what_is_ignored_under_nohup_or_in_the_background_what_tests_start_hears_and_the_tests_do_not_end(
    name: str,
) -> None:
    child = f"import signal; print(signal.getsignal(signal.{name}) != signal.SIG_IGN)"
    code = (
        f"import os, signal, subprocess, sys; signal.signal(signal.{name}, signal.SIG_IGN); import conftest;"
        f"os.kill(os.getpid(), signal.{name}); subprocess.run([sys.executable, '-c', {child!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=findable())
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
