"""Live progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from .models.progress import PlainProgress, Progress

__all__ = ["LiveProgress", "shown_progress"]


class LiveProgress(Progress):
    """A bar for the step under way; notes scroll by above it.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._step: TaskID | None = None

    def start(self, total: int, label: str) -> None:
        """Begin a step of ``total`` units; a step under way ends."""
        self.finish()
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._step = self._bars.add_task(label, total=total)
        self._bars.start()

    def advance(self, units: int = 1) -> None:
        """Report ``units`` more as done."""
        if self._bars is not None and self._step is not None:
            self._bars.advance(self._step, units)

    def note(self, message: str) -> None:
        """Say one thing above the bar."""
        self._console.print(message, markup=False, highlight=False)

    def finish(self) -> None:
        """End the step; its bar stays, as it was last."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._step = None


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Live on a terminal, plain lines elsewhere; on standard error, so results can be piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainProgress(sys.stderr)
        return
    live = LiveProgress(console)
    try:
        yield live
    finally:
        # A bar that is left running would hide the terminal's cursor.
        live.finish()
