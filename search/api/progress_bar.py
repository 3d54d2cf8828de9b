"""A progress bar of plain text, for terminals and notebooks alike."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from ..._text import visible
from ...models.progress import SILENT, PlainProgress, Progress

__all__ = ["TextBar", "chosen_progress"]

_WIDTH = 30
_INTERVAL = 0.2
# Longer than any line of ours, to wipe what was there.
_BLANK = " " * 110


class TextBar(Progress):
    """One line that is drawn again and again; notes are printed above it.

    Args:
        stream: Where it is drawn; must take a carriage return. Standard output when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._label = ""
        self._total = self._done = 0
        self._began = self._drawn = 0.0
        self._open = False

    def start(self, total: int, label: str) -> None:
        """Begin a step of ``total`` units; a step under way ends."""
        self.finish()
        self._label, self._total, self._done = visible(label), total, 0
        self._began = time.monotonic()
        self._open = True
        self._draw()

    def advance(self, units: int = 1) -> None:
        """Report ``units`` more as done."""
        self._done += units
        if self._open and time.monotonic() - self._drawn >= _INTERVAL:
            self._draw()

    def note(self, message: str) -> None:
        """Say one thing above the bar."""
        said = visible(message)
        self._write(f"\r{_BLANK}\r{said}\n" if self._open else f"{said}\n")
        if self._open:
            self._draw()

    def finish(self) -> None:
        """End the step; its line stays."""
        if self._open:
            self._draw()
            self._write("\n")
        self._open = False

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        share = min(self._done / self._total, 1.0) if self._total else 0.0
        full = round(share * _WIDTH)
        seconds = self._drawn - self._began
        bar = "#" * full + "-" * (_WIDTH - full)
        line = f"{self._label} [{bar}] {self._done} of {self._total}, {seconds:.0f} s"
        self._write(f"\r{line[: len(_BLANK)]}")

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(text)
        stream.flush()


def chosen_progress(progress: bool | Progress) -> Progress:
    """What shows progress: a bar, lines where nothing can be drawn again, or nothing."""
    if isinstance(progress, Progress):
        return progress
    if not progress:
        return SILENT
    return TextBar() if sys.stdout.isatty() or _in_notebook() else PlainProgress()


def _in_notebook() -> bool:
    return type(sys.stdout).__module__.startswith("ipykernel")
