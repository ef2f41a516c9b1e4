"""The documentation as its tests see it: pages, and the blocks and spans of code in them, by kind.

Kinds are told by what a block says and not by a list of pages, so that a new page is tested from its first day:

- a script asks its question with `run_script`, or has a `__main__`;
- a job speaks to the service, by its address;
- a block that defines or imports all its names is run as it stands;
- any other is a fragment of something longer: its imports, and the names and arguments of ours that it uses, are there.
"""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS]
"""Those with examples."""

LINKED = sorted(
    {*PAGES, *ROOT.glob("*.md"), *(ROOT / "optimizer").rglob("*.md"), *(ROOT / "tests" / "benchmarks").rglob("*.md")}
)
"""Those whose links are followed."""

ADDRESS = "http://127.0.0.1:8089"
"""Of the service, in examples."""

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

Kind = Literal["script", "job", "whole", "fragment"]


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: that it is on.
        line: of the page, where it begins.
        section: the heading that it stands under.
        language: as the fence says it.
        text: without the fence.
    """

    page: Path
    line: int
    section: str
    language: str
    text: str

    @property
    def where(self) -> str:
        """For a test's name or message."""
        return f"{self.page.name}:{self.line}"

    @property
    def kind(self) -> Kind:
        """Of a block of Python."""
        if '__name__ == "__main__"' in self.text:
            return "script"
        if free_names(self.text):
            return "fragment"
        return "job" if ADDRESS in self.text else "whole"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, in order; of some languages alone where they are named."""
    text = page.read_text()
    found = []
    for match in FENCED.finditer(text):
        before = text[: match.start()]
        headings = HEADING.findall(FENCED.sub("", before))
        section = headings[-1] if headings else ""
        found.append(Block(page, before.count("\n") + 2, section, match[1], match[2]))
    return [block for block in found if not languages or block.language in languages]


def all_blocks(*languages: str) -> list[Block]:
    """Of all pages."""
    return [block for page in PAGES for block in blocks(page, *languages)]


def spans(page: Path) -> list[str]:
    """The code within the sentences of a page."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCED.sub("", page.read_text()))]


def imported(text: str) -> set[str]:
    """The packages that a block imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def free_names(text: str) -> set[str]:
    """The names that a block uses and neither defines nor imports."""
    used, bound = set(), set(dir(builtins)) | {"__name__", "__file__"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return used - bound


def anchors(page: Path) -> set[str]:
    """What may stand behind `#` in a link to a page, as GitHub makes it of headings."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
