"""Live progress on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
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
from rich.table import Table
from rich.text import Text

from .._text import visible
from ..models.progress import PlainProgress, Progress

__all__ = ["LiveProgress", "shown_progress"]

# Heading, caption, bar, and room for a note.
_OTHER_LINES = 5


class LiveProgress(Progress):
    """A bar for the step under way, and a table of its parts; notes scroll by above them.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
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
        self._step = self._bars.add_task(visible(label), total=total)
        self._live = Live(self._bars, console=self._console, refresh_per_second=4)
        self._live.start()

    def advance(self, units: int = 1) -> None:
        """Report ``units`` more as done."""
        if self._bars is not None and self._step is not None:
            self._bars.advance(self._step, units)

    def note(self, message: str) -> None:
        """Say one thing above the bar."""
        with contextlib.suppress(OSError):
            self._console.print(visible(message), markup=False, highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show the table above the bar, as many of its rows as the terminal has room for."""
        if self._live is None or self._bars is None:
            return
        room = max(1, self._console.height - _OTHER_LINES)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(Text(column))
        for row in rows[:room]:
            table.add_row(*(Text(visible(cell)) for cell in row))
        if len(rows) > room:
            table.caption = f"and {len(rows) - room} more"
        self._live.update(Group(table, self._bars))

    def finish(self) -> None:
        """End the step; bar and table stay, as they were last."""
        if self._live is not None:
            # A terminal may be gone; the run that ends with it is not.
            with contextlib.suppress(OSError):
                self._live.stop()
        self._live = self._bars = self._step = None


@contextlib.contextmanager
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
