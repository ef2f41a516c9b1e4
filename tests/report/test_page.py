"""The report as a page, and its pictures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from written_study import write_study

from optimizer.report.page import page, pictures
from optimizer.report.reading import read_evidence

BROWSER = next(
    (path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "studies.db"
    write_study(file)
    return file


def test_every_picture_has_a_title_and_units_on_its_axes(storage: Path) -> None:
    drawn = pictures(read_evidence(str(storage)))
    assert {"landscape", "pareto", "throughput", "learning_curves", "time_to_target", "steps_to_target"} == set(drawn)
    for figure in drawn.values():
        assert figure.layout.title.text
        titles = [axis.title.text for axis in figure.select_yaxes()] + [figure.layout.xaxis.title.text]
        titles += [axis.title.text for axis in figure.select_xaxes()]
        assert [title for title in titles if title]


def test_a_picture_whose_data_are_missing_is_left_out(storage: Path) -> None:
    """Nobody reached 99 %: there is nothing to draw, and nothing made up."""
    evidence = read_evidence(str(storage), target=0.99)
    assert {"time_to_target", "steps_to_target"}.isdisjoint(pictures(evidence))
    assert "No trial reached 99.0%; the nearest came to 93.75%." in page(evidence)


def test_the_page_says_the_advice_and_loads_nothing_from_elsewhere(storage: Path) -> None:
    text = page(read_evidence(str(storage)))
    assert "Use batch size 64 with learning rate 0.01" in text
    assert "<script src=" not in text
    assert "<link" not in text
    assert text.count('class="figure"') == 6


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_draws_the_page_without_a_network(storage: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(read_evidence(str(storage))), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom"]
    seen = subprocess.run(
        [str(BROWSER), *flags, *offline, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert seen.count('class="main-svg"') >= 6
    assert "training time of 2 epochs, s" in seen
