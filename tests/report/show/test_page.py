"""The report as a page, and its pictures."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.io
import pytest
from batchopt.cli.batchopt import batchopt
from batchopt.cli.reading import PNG_SCALE, PNG_WIDTH
from batchopt.errors import InvalidInput
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.page import page
from batchopt.report.show.pictures import pictures
from batchopt.report.show.plots import throughput
from batchopt.store.history import TrialRecord
from browsing import browser, drawn_by_browser, svg_texts
from click.testing import CliRunner
from written_study import write_studies, write_study

UNIT = re.compile(r"examples|, %|, s$|MiB|per second|\bepoch\b|optimizer steps|learning rate")
"""A learning rate has none, and an epoch and a step are their own."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "studies.db"
    write_study(file)
    return file


def test_every_picture_has_a_title_and_units_on_its_axes(storage: Path) -> None:
    drawn = pictures(read_evidence(str(storage)))
    assert {"landscape", "pareto", "throughput", "learning_curves", "time_to_target", "steps_to_target"} == set(drawn)
    for name, figure in drawn.items():
        assert figure.layout.title.text
        # Of axes above each other that are one, the lowest has the title.
        shared = [axis for axis in figure.select_xaxes() if axis.matches or axis.title.text]
        axes = [axis for axis in shared if axis.title.text] + list(figure.select_yaxes())
        titles = [axis.title.text for axis in axes]
        assert len(titles) >= 2
        for title in titles:
            assert title and UNIT.search(title), f"{name}: {title}"


def test_the_landscape_shows_its_interval_and_its_marks_are_seen_on_every_colour(storage: Path) -> None:
    figure = pictures(read_evidence(str(storage)))["landscape"]
    kinds = {trace.type for trace in figure.data}
    assert "contour" in kinds, "lines of equal intervals"
    marks = [trace.marker for trace in figure.data if trace.type == "scatter"]
    assert len(marks) == 4, "complete, stopped, diverged, recommended"
    for mark in marks:
        for background in ("#FDE737", "#00224E"):
            # WCAG 2.1, success criterion 1.4.11: 3 to 1 for what is to be seen.
            seen = [contrast(colour, background) for colour in (mark.color, mark.line.color)]
            assert max(seen) >= 3, (mark, background)


def test_the_memory_figure_has_the_limit_that_training_had(storage: Path) -> None:
    rows = [BatchSizeRow(size, 0.01, 0.9, 2, 1.0, 1000.0, 1) for size in (16, 64)]
    epochs = [{"epoch": 1, "peak_bytes": 40 << 20}]
    trials = [TrialRecord(n, n, "complete", row.batch_size, 0.01, {}, 0.9, epochs, "") for n, row in enumerate(rows)]
    limited = throughput(rows, trials, 64 << 20)
    assert [shape.y0 for shape in limited.layout.shapes] == [64]
    assert not throughput(rows, trials, None).layout.shapes


def contrast(one: str, other: str) -> float:
    """Of two colours, by the formula of WCAG 2.1."""

    def luminance(colour: str) -> float:
        digits = {"white": "FFFFFF"}.get(colour, colour.lstrip("#"))
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_picture_whose_data_are_missing_is_left_out(storage: Path) -> None:
    """Nobody reached 99 %: there is nothing to draw, and nothing made up."""
    evidence = read_evidence(str(storage), target=0.99)
    assert {"time_to_target", "steps_to_target"}.isdisjoint(pictures(evidence))
    assert "No trial reached 99%; the nearest came to 93.75%." in page(evidence)


def test_the_page_says_the_advice_and_loads_nothing_from_elsewhere(storage: Path) -> None:
    text = page(read_evidence(str(storage)))
    assert "Use batch size 64 with learning rate 0.01" in text
    assert "<script src=" not in text
    assert "<link" not in text
    assert text.count('class="figure"') == 6


def test_a_browser_draws_the_page_without_a_network(storage: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(read_evidence(str(storage))), encoding="utf-8")
    seen = drawn_by_browser(file.as_uri(), tmp_path, "--host-resolver-rules=MAP * ~NOTFOUND")
    assert "<h2>Learning curves</h2>" in seen
    assert {"validation accuracy, %", "training time of 2 epochs (log), s"} <= set(svg_texts(seen))


def test_pictures_are_written_for_papers(storage: Path, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    browser()
    done = CliRunner().invoke(batchopt, ["report", "--storage", str(storage), "--png", str(tmp_path / "pictures")])
    assert done.exit_code == 0, done.output
    written = sorted((tmp_path / "pictures").iterdir())
    assert [file.stem for file in written] == sorted(pictures(read_evidence(str(storage))))
    for file in written:
        head = file.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == PNG_WIDTH * PNG_SCALE


def test_without_kaleido_pictures_are_refused_in_one_line_and_nothing_is_written(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ValueError("Image export requires the Kaleido package")

    monkeypatch.setattr(plotly.io, "write_images", missing)
    done = CliRunner().invoke(batchopt, ["report", "--storage", str(storage), "--png", str(tmp_path / "pictures")])
    assert isinstance(done.exception, InvalidInput)
    assert "pip install 'batchopt[png]'" in str(done.exception)
    assert not (tmp_path / "pictures").exists()


LAYOUT = """<pre id="layout"></pre><script>setTimeout(() => {
  const found = [];
  document.querySelectorAll(".figure").forEach(figure => {
    const name = figure.querySelector(".plotly-graph-div").id, frame = figure.getBoundingClientRect();
    const boxes = [...figure.querySelectorAll("svg.main-svg text")].filter(text => text.textContent.trim() &&
      getComputedStyle(text).visibility !== "hidden").map(text => [text.textContent, text.getBoundingClientRect()])
      .filter(([, box]) => box.width > 0);
    boxes.forEach(([text, box], at) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 ||
          box.bottom > frame.bottom + 1) found.push(`${name}: ${text} is outside`);
      boxes.slice(at + 1).forEach(([other, next]) => {
        const wide = Math.min(box.right, next.right) - Math.max(box.left, next.left);
        const high = Math.min(box.bottom, next.bottom) - Math.max(box.top, next.top);
        if (wide > 2 && high > 3) found.push(`${name}: ${text} is on ${other}`);
      });
    });
  });
  document.getElementById("layout").textContent = "measured " + JSON.stringify(found);
}, 1500);</script>"""
"""Texts of pictures that lie outside of their picture, or on each other, as a browser has laid them out."""


PAPER = "paper"
LAYOUTS = [(made, width) for made in ("default", "tiny", "regression") for width in (390, 760, 1100, PAPER)]
EACH_TIME = (("default", 390),)
"""A browser takes ten seconds for each."""


@pytest.mark.parametrize(
    ("made", "width"),
    [pytest.param(*layout, marks=[] if layout in EACH_TIME else [pytest.mark.slow]) for layout in LAYOUTS],
)
def test_no_text_of_a_picture_lies_on_another_or_outside(made: str, width: int | str, tmp_path: Path) -> None:
    """On a phone, too, whose width a headless browser's window cannot have, and on paper, which is 18 cm wide."""
    write_studies(tmp_path / "studies.db")
    file = tmp_path / "report.html"
    text = page(read_evidence(str(tmp_path / "studies.db"), made))
    printing = "<script>dispatchEvent(new Event('beforeprint'));</script>" if width == PAPER else ""
    body = f'<body style="max-width: {680 if width == PAPER else width - 16}px; padding: 0">'
    text = text.replace("<body>", body).replace("</body>", f"{printing}{LAYOUT}</body>")
    file.write_text(text, encoding="utf-8")
    seen = drawn_by_browser(file.as_uri(), tmp_path, "--window-size=1100,3000")
    (measured,) = re.findall(r'<pre id="layout">measured (.*?)</pre>', seen)
    assert measured == "[]"
