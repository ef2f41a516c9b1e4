"""What a notebook shows: a bar while a study goes on, and a report that is a page and pictures."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from batchopt.events import Ended, Noted, Opened, TrialEnded
from batchopt.question.metric import Metric
from batchopt.report.show.notebook import Bar, default_listener, in_notebook
from batchopt.report.show.study_report import read_report
from written_study import MACHINE, write_study

OPENED = Opened("mnist", "studies.db", MACHINE, "fused", (), 5, Metric(), trials=3, finished=1, running=0)
TRIAL = TrialEnded(1, "complete", 64, 0.01, Metric(), 0.9375, epochs=5, train_seconds=1.0)


def test_a_bar_counts_trials_and_names_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    for event in (OPENED, TRIAL, Noted("by the way"), dataclasses.replace(TRIAL, trial=2, value=0.5), Ended("enough")):
        bar(event)
    said = capsys.readouterr()
    assert said.out == "", "a notebook's standard output is its cells'"
    assert "study mnist" in said.err and "3/3" in said.err and "by the way" in said.err and "ended: enough" in said.err
    assert "best 64 x 0.01: 93.75%" in said.err.replace("\r", "\n").splitlines()[-1]


def test_a_script_is_no_notebook_and_a_kernel_is_one(tmp_path: Path) -> None:
    assert not in_notebook()
    assert not isinstance(default_listener(), Bar)
    kernel = (
        "import sys, types\n"
        "shell = types.SimpleNamespace(config={'IPKernelApp': {}})\n"
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
        "from batchopt.report.show.notebook import default_listener\n"
        "print(type(default_listener()).__name__)\n"
    )
    assert subprocess.run([sys.executable, "-c", kernel], capture_output=True, text=True).stdout == "Bar\n"


def test_a_report_shows_itself_as_text_as_html_and_as_pictures(tmp_path: Path) -> None:
    write_study(tmp_path / "studies.db")
    report = read_report(str(tmp_path / "studies.db"))
    assert str(report).startswith("Use batch size 64 with learning rate")
    assert report._repr_html_().count("<table>") == 3
    assert "<script" not in report._repr_html_()
    assert {"landscape", "learning_curves"} <= report.figures().keys()
    assert "_evidence" not in report.describe()
    assert read_report(str(tmp_path / "studies.db")) == report
