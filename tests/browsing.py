"""A real browser, headless: what it makes of a page."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

from servers import missing

NAMES = ("chromium", "google-chrome", "chromium-browser")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def browser() -> str:
    """Where it is; the test is skipped where there is none, and fails where one is required."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or missing("no Chromium or Chrome on this machine")


def drawn_by_browser(address: str, folder: Path, *flags: str) -> str:
    """The document after its scripts have run for some seconds of the browser's own clock."""
    command = [browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    command += ["--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def svg_texts(document: str) -> list[str]:
    """The texts that were drawn, so that data which a page merely holds does not count."""
    texts = re.findall(r"<text\b[^>]*>(.*?)</text>", document, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", text)) for text in texts]
