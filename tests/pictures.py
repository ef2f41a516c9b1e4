"""`python pictures.py [DATABASE]`: the pictures under docs/, of a real study as a browser shows it.

Where no database is named, the main job is run first, which takes some minutes; its report, which is printed, is that
of the README. Look at the pictures before you commit them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchopt.cli.reading import PNG_WIDTH
from batchopt.report.answer.reading import list_studies, read_evidence
from batchopt.report.show.page import page
from batchopt.report.show.pictures import pictures
from browsing import FLAGS, browser, drawn_by_browser
from pages import ROOT

DOCS = ROOT / "docs"
STORAGE = "studies.db"

SCALE = 2
"""Pixels of the figure for each of its."""

REPORT_WIDTH = 960
DASHBOARD = (1280, 3400)
OURS = (1210, 1490)
"""Where the pictures of ours begin on optuna-dashboard's page, and how high they are together, in pixels."""

FIRST_LOOK = """<style>.picture ~ *, .modebar-container { display: none !important; }</style>
<pre id="height"></pre><script>setTimeout(() => {
  document.getElementById("height").textContent =
    "high " + Math.ceil(document.querySelector(".picture").getBoundingClientRect().bottom);
}, 1500);</script>"""
"""Leaves of a report's page what stands before its second picture, and says how high that is."""


def shot(address: str, file: Path, width: int, height: int) -> None:
    """What a browser's window shows, as a PNG."""
    command = [browser(), *FLAGS, f"--user-data-dir={Path.cwd() / 'profile'}", f"--window-size={width},{height}"]
    command += ["--hide-scrollbars", "--virtual-time-budget=30000", f"--screenshot={file}", address]
    subprocess.run(command, check=True, timeout=180, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def figure_picture() -> None:
    """The metric against training time, which one decides by."""
    figure = pictures(read_evidence(STORAGE))["pareto"]
    figure.write_image(DOCS / "accuracy_time.png", width=PNG_WIDTH, scale=SCALE)


def report_picture() -> None:
    """The advice, the table and the first picture of a report's page."""
    file = Path("report.html").absolute()
    file.write_text(page(read_evidence(STORAGE)).replace("</body>", f"{FIRST_LOOK}</body>"), encoding="utf-8")
    seen = drawn_by_browser(file.as_uri(), Path.cwd(), f"--window-size={REPORT_WIDTH},3000")
    (height,) = re.findall(r'<pre id="height">high (\d+)</pre>', seen)
    shot(file.as_uri(), DOCS / "report.png", REPORT_WIDTH, int(height) + 8)


def dashboard_picture() -> None:
    """The pictures of ours that optuna-dashboard shows of the study."""
    whole, part = Path("whole.png").absolute(), Path("part.html").absolute()
    with dashboard() as address:
        shot(f"{address}/dashboard/studies/1", whole, *DASHBOARD)
    top, height = OURS
    shown = f'<img src="{whole.as_uri()}" style="display: block; margin-top: -{top}px">'
    part.write_text(f'<body style="margin: 0">{shown}</body>', encoding="utf-8")
    shot(part.as_uri(), DOCS / "dashboard.png", DASHBOARD[0], height)


@contextmanager
def dashboard() -> Iterator[str]:
    """The address of `batchopt dashboard`."""
    code = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()"]
    served = subprocess.Popen(
        [*code, "dashboard", "--port", "8097"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert served.stdout is not None
        for line in served.stdout:
            if found := re.search(r"(http://\S+)/dashboard", line):
                yield found[1]
                return
        raise RuntimeError("batchopt dashboard has ended")
    finally:
        os.kill(served.pid, signal.SIGINT)
        served.communicate(timeout=60)


def main() -> None:
    """All of them."""
    given = [Path(name).absolute() for name in sys.argv[1:2]]
    with tempfile.TemporaryDirectory() as folder:
        # Where a picture says which database it is of, that is a file of the working folder.
        os.chdir(folder)
        if given:
            shutil.copy(given[0], STORAGE)
        else:
            subprocess.run([sys.executable, ROOT / "studies" / "mnist.py"], check=True)
        assert len(list_studies(STORAGE)) == 1, "a database with one study"
        for make in (figure_picture, report_picture, dashboard_picture):
            make()
            print(f"made: {make.__name__}")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
