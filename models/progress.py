"""Telling the user what is going on: a small interface, a silent and a plain-text one."""

from __future__ import annotations

import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TextIO

from .._text import visible

__all__ = ["SILENT", "KeptNotes", "KeptWarnings", "PlainProgress", "Progress", "SilentProgress"]


class Progress(ABC):
    """Receives the progress of one long step at a time."""

    @abstractmethod
    def start(self, total: int, label: str) -> None:
        """Begin a step of ``total`` units; ``label`` says what it does."""

    @abstractmethod
    def advance(self, units: int = 1) -> None:
        """Report ``units`` more as done."""

    @abstractmethod
    def note(self, message: str) -> None:
        """Say one thing, with or without a step under way."""

    def warn(self, message: str) -> None:
        """Say one thing that whoever reads the results has to know; a run keeps it."""
        self.note(message)

    @abstractmethod
    def finish(self) -> None:
        """End the step."""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show how the parts of the step under way get on, in place of what was shown before.

        Nothing by default: lines that are printed cannot be replaced.

        Args:
            columns: Headings.
            rows: Cells, those that matter most first.
        """
        return


class KeptWarnings(Progress):
    """Passes everything on, and keeps warnings.

    Args:
        progress: Receives everything.

    Attributes:
        kept: The warnings so far, each once.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.kept: list[str] = []

    def start(self, total: int, label: str) -> None:
        """See :meth:`Progress.start`."""
        self._progress.start(total, label)

    def advance(self, units: int = 1) -> None:
        """See :meth:`Progress.advance`."""
        self._progress.advance(units)

    def note(self, message: str) -> None:
        """See :meth:`Progress.note`."""
        self._progress.note(message)

    def warn(self, message: str) -> None:
        """Keep the message and pass it on."""
        if message not in self.kept:
            self.kept.append(message)
        self._progress.warn(message)

    def finish(self) -> None:
        """See :meth:`Progress.finish`."""
        self._progress.finish()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """See :meth:`Progress.table`."""
        self._progress.table(columns, rows)


class SilentProgress(Progress):
    """Says nothing."""

    def start(self, total: int, label: str) -> None:
        """Say nothing."""

    def advance(self, units: int = 1) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


class KeptNotes(SilentProgress):
    """Keeps what is said, for another process to say it.

    Attributes:
        notes: In order.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep the message."""
        self.notes.append(message)


SILENT: Progress = SilentProgress()
"""The default of every ``progress`` argument."""


class PlainProgress(Progress):
    """One line now and then, for logs and terminals without cursor control.

    Args:
        stream: Where lines go; standard error when None.
        interval: Least seconds between two lines about the same step.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream
        self._interval = interval
        self._label = ""
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._last_line = 0.0

    def start(self, total: int, label: str) -> None:
        """Begin a step of ``total`` units; ``label`` says what it does."""
        self._label, self._total, self._done = label, total, 0
        self._began = self._last_line = time.monotonic()
        self._print(f"{label} ...")

    def advance(self, units: int = 1) -> None:
        """Report ``units`` more as done; prints when the last line is old enough."""
        self._done += units
        now = time.monotonic()
        if now - self._last_line < self._interval:
            return
        self._last_line = now
        elapsed = now - self._began
        line = f"{self._label}: {self._done} of {self._total}, {elapsed:.0f} s so far"
        if self._done:
            remaining = elapsed * max(self._total - self._done, 0) / self._done
            line += f", about {remaining:.0f} s to go"
        self._print(line)

    def note(self, message: str) -> None:
        """Print the message at once."""
        self._print(message)

    def finish(self) -> None:
        """End the step and say how long it took."""
        self._print(f"{self._label}: done in {time.monotonic() - self._began:.1f} s")

    def _print(self, line: str) -> None:
        # A terminal may be gone; what is said is not worth what is being done.
        with contextlib.suppress(OSError):
            print(visible(line), file=self._stream or sys.stderr, flush=True)
