"""Every sentence that a user may read, in one file: a change of words is seen there, and read there.

`python tests/test_messages.py` writes the file anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "optimizer" / "batchopt"
GOLDEN = Path(__file__).with_name("messages.txt")

LEAST_WORDS = 3
"""What has fewer is a name, a unit or a column."""


def sentences(source: str) -> Iterator[str]:
    """The texts of a module that are no docstrings, what is filled in as `{}`."""
    tree = ast.parse(source)
    silent: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            # Docstrings, of names too; those of commands are shown as their help.
            silent.add(id(node.value))
        if isinstance(node, ast.FunctionDef) and any("command(" in ast.unparse(d) for d in node.decorator_list):
            silent -= {id(first.value) for first in node.body[:1] if isinstance(first, ast.Expr)}
        if isinstance(node, ast.JoinedStr):
            silent.update(id(part) for part in node.values)
    for node in ast.walk(tree):
        if id(node) in silent:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        text = " ".join(text.split())
        if len(re.findall(r"[A-Za-z]{2,}", text)) >= LEAST_WORDS and " " in text:
            yield text


def everything() -> str:
    """All sentences by module, sorted."""
    lines = []
    for file in sorted(PACKAGE.rglob("*.py")):
        found = sorted(set(sentences(file.read_text())))
        if found:
            lines += [f"# {file.relative_to(PACKAGE)}", *found, ""]
    return "\n".join(lines)


def test_every_sentence_is_as_it_was_read() -> None:
    assert everything() == GOLDEN.read_text(), "read the new words, then `python tests/test_messages.py`"


if __name__ == "__main__":
    GOLDEN.write_text(everything())
