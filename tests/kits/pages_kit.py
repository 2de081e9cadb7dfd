"""The documentation's pages as a reader meets them: blocks of code, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from core.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "samples/README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:proccorpus|make|python) [^`]*)`")


@dataclass(frozen=True)
class Block:
    line: int
    kind: str  # sh, console, python, sql, toml, yaml, json, text
    text: str

    @property
    def commands(self) -> list[str]:
        """Of sh every line, of console what stands behind a prompt."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.kind == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        if self.kind == "sh":
            return [line for line in lines if words(line)]
        return []


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    page_blocks = []
    for match in FENCE.finditer(text):
        indent, kind, body = match.groups()
        body = "\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n"
        page_blocks.append(Block(text[: match.start()].count("\n") + 1, kind, body))
    return page_blocks


def inline_commands(page: Path) -> list[str]:
    """Commands in running text, but for those with dots for what is left to the reader."""
    return [c for c in INLINE.findall(FENCE.sub("", page.read_text())) if "..." not in c]
