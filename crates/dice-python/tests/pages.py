"""Pages whose code runs: the blocks of a section, behind those that stand before the first section."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest


class Section(NamedTuple):
    """A section of a page, and its code on the lines where the page has it."""

    name: str
    page: Path
    code: str

    def modules(self) -> set[str]:
        """What it imports."""
        nodes = list(ast.walk(ast.parse(self.code)))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return named | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}

    def run(self, given: dict[str, object] | None = None) -> dict[str, object]:
        """What its code leaves behind; skips where a library that it imports is not installed."""
        for module in sorted(self.modules()):
            pytest.importorskip(module.split(".")[0], reason=f"{self.page.name}, {self.name}: {module} is not installed")
        names = dict(given or {}, __name__="page")
        exec(compile(self.code, self.page, "exec"), names)
        return names


def sections(page: Path) -> list[Section]:
    """The sections of a page that have code."""
    lines = page.read_text().splitlines()
    setup, found = _blocks(lines)
    return [Section(name, page, "\n".join({**setup, **own}.get(place, "") for place in range(len(lines)))) for name, own in found.items()]


def _blocks(lines: list[str]) -> tuple[dict[int, str], dict[str, dict[int, str]]]:
    """Lines of code by their place: of what stands before the first section, and of each section."""
    name, inside = "", False
    found: dict[str, dict[int, str]] = {name: {}}
    for place, line in enumerate(lines):
        if line.startswith("```"):
            inside = line == "```python"
        elif inside:
            found.setdefault(name, {})[place] = line
        elif line.startswith("## "):
            name = line[3:]
    return found.pop(""), found
