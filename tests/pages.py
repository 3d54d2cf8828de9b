"""What the pages show: files, commands and snippets, in the order of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunetune.cli.app import app
from typer.main import get_command

__all__ = ["Block", "blocks", "check_words", "commands"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# ([\w.-]+\.(?:yaml|py))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: What stands behind the fence.
        text: What is inside.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it shows: its first line, as a comment."""
        match = _FILE.match(self.text)
        return match.group(1) if match else None

    @property
    def lines(self) -> list[str]:
        """The commands of a block of bash."""
        lines = (line.partition(" #")[0] for line in self.text.splitlines())
        return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*match) for match in _BLOCK.findall(page.read_text())]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `prunetune` command of a page, without the first."""
    for block in blocks(page):
        if block.language == "bash":
            for words in map(shlex.split, block.lines):
                if words[0] == "prunetune":
                    yield words[1:]


def check_words(words: list[str]) -> None:
    """That the command line has such a command with such options; it is not run."""
    # Newer versions of typer bring their own click, so its types are not named here.
    root: Any = get_command(app)
    assert words[0] in root.commands, f"there is no command {words[0]!r}"
    if len(words) > 1:
        root.commands[words[0]].make_context(words[0], list(words[1:]))
