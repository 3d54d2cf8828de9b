"""The comparison table on a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..._text import visible
from .results import FLOPS_NOTE, Results, budget_text
from .table import HEADINGS, comparison_rows, displayed, judgements, short_count

__all__ = ["print_results", "terminal_results"]


def terminal_results(results: Results) -> RenderableType:
    """Arrange the dense network, the comparison table and the verdicts for rich to print."""
    summary, dense = results.summary, results.dense
    test = "not known yet" if dense.test is None else f"{100 * dense.test:.2f} %"
    lines: list[RenderableType] = [
        _text(
            f"{summary.name} ({summary.status}). Dense: test accuracy {test}, "
            f"{short_count(dense.flops)} FLOPs, {short_count(dense.params)} parameters."
        )
    ]
    table = Table()
    for number, heading in enumerate(HEADINGS):
        text = number < 3
        table.add_column(heading, justify="left" if text else "right", no_wrap=text)
    for row in comparison_rows(results):
        table.add_row(*map(_text, displayed(row, results)))
    lines.append(table)
    lines.append(
        _text(f"Medians over seeds [95 % bootstrap interval from 3 seeds on]. {FLOPS_NOTE}")
    )
    for best in results.bests:
        if best.error:
            lines.append(_text(f"{best.trial} ended early: {best.error}"))
        lines.extend(_text(f"{best.trial}: {note}") for note in best.notes)
    for judgement in judgements(results):
        where = f"{budget_text(judgement.budget)}, {judgement.agent}"
        lines.append(_text(f"{where}: {judgement.sentence}"))
    return Group(*lines)


def print_results(results: Results, console: Console | None = None) -> None:
    """Print `terminal_results`, wide enough for a log where there is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=max(console.width, 160))
    console.print(terminal_results(results))


def _text(text: str) -> Text:
    """Show text that others may have written, without markup and commands for the terminal."""
    return Text(visible(text))
