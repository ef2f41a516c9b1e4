"""The pages under docs/: their scripts run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_command

ROOT = Path(__file__).parents[1]
SMALL = ["--trials", "1", "--epochs", "1", "--no-probe", "--engine", "fused", "--device", "cpu"]
SCRIPT = re.compile(r'^```python\n((?:(?!^```).)*?if __name__ == "__main__":.*?)^```', re.DOTALL | re.MULTILINE)


def scripts(page: Path) -> list[str]:
    return SCRIPT.findall(page.read_text())


PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if scripts(page)]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem == "from_keras_tuner" else []) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_a_script_of_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    for text in scripts(page):
        (tmp_path / "study.py").write_text(text)
        small = SMALL if "run_script" in text else []
        done = run_command(["study.py", *small], tmp_path, timeout=240)
        assert done.returncode == 0, done.stderr
        assert ("Use batch size" in done.stdout) == bool(small)


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
