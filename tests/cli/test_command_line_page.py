"""What docs/command_line.md says: exit codes, completion, colours and narrow terminals."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from batchopt.cli import exits
from batchopt.cli.batchopt import main
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.console import TextConsole
from batchopt.report.show.document import document
from batchopt.report.show.terminal import printed
from commands import BATCHOPT
from written_study import write_study

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()


def completed(monkeypatch: pytest.MonkeyPatch, instruction: str, words: str = "", at: int = 0) -> str:
    """What the shell is told."""
    monkeypatch.setattr(sys, "argv", ["batchopt"])
    # As of a program's file, and not of `python -m pytest`, after which click would name the program.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    monkeypatch.setenv("_BATCHOPT_COMPLETE", instruction)
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(at))
    output = io.TextIOWrapper(io.BytesIO())
    with redirect_stdout(output), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    output.flush()
    output.seek(0)
    return output.read()


def test_each_exit_code_is_on_the_page() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    signals = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)}
    assert listed == {0, exits.FAILED, exits.USAGE_ERROR, exits.HUNG_UP, exits.BROKEN_PIPE, *signals}


def test_whoever_stops_reading_is_no_failure(tmp_path: Path) -> None:
    write_study(tmp_path / "studies.db")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*BATCHOPT, "trials", "--storage", str(tmp_path / "studies.db")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (exits.BROKEN_PIPE, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_options_and_choices(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"_BATCHOPT_COMPLETE={shell}_source batchopt" in PAGE
    if shell != "bash":
        assert "_BATCHOPT_COMPLETE" in completed(monkeypatch, f"{shell}_source")
        return
    assert "report" in completed(monkeypatch, "bash_complete", "batchopt re", 1)
    assert "--prefer" in completed(monkeypatch, "bash_complete", "batchopt report --pre", 2)
    assert "balanced" in completed(monkeypatch, "bash_complete", "batchopt report --prefer ba", 3)


def shown(folder: Path, width: int) -> str:
    write_study(folder / "studies.db")
    output = io.StringIO()
    console = TextConsole(file=output, force_terminal=True, width=width, color_system="standard")
    console.print(printed(document(read_evidence(str(folder / "studies.db")).report, details=True)))
    return output.getvalue()


def test_no_color_leaves_colours_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*\b(3|4|9|10)[0-7]\b", shown(tmp_path, 100))


@pytest.mark.parametrize("width", [40, 60])
def test_on_a_narrow_terminal_no_line_is_wider_and_none_is_cut(width: int, tmp_path: Path) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(tmp_path, width)).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
