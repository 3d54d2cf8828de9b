"""How every picture is drawn: its panels, its legend, and what tells its lines apart.

Lines differ by colour, marker and dash, not only by colour.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..._text import visible
from ..run.summary import Best
from .results import Results, budget_text

__all__ = [
    "line_styles",
    "make_figure",
    "render",
    "search_name",
    "searched",
    "series_name",
    "shared_legend",
    "style",
]

# Inches that a legend needs: of a character, beside its text, and of a line.
_CHARACTER, _HANDLE, _LINE = 0.08, 0.7, 0.19
# Okabe & Ito's palette (2008): distinct for the colour-blind and of different lightness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_LONGEST_LABEL = 160
_STYLE: Any = {
    "font.size": 10,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "prunetune",
    # Names are shown as they are: a dollar in one begins no formula.
    "text.parse_math": False,
}


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Return the content of the picture's file, which is the same for the same figure."""
    for text in figure.findobj(Text):
        text.set_text(_label(text.get_text()))
    sink = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, and no matter for a user.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(sink, format=kind, dpi=150, metadata=metadata)
    return sink.getvalue()


def _label(text: str) -> str:
    """Shorten a text for a picture, because an endless one would leave room for nothing else."""
    shown = visible(text)
    return shown if len(shown) <= _LONGEST_LABEL else f"{shown[: _LONGEST_LABEL - 1]}…"


def style() -> AbstractContextManager[None]:
    """Set how pictures look; enter it around drawing and rendering them."""
    return matplotlib.rc_context(_STYLE)


def make_figure(panels: int, height: float, shared: bool = True) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure with so many panels, of a height in inches each; returns it and the panels."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    width = 7.2 if panels == 1 else 4.0 * columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared and panels > 1).ravel()
    for unused in grid[panels:]:
        unused.set_visible(False)
    return figure, list(grid[:panels])


def shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put one legend for all panels below them, where it hides nothing."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries = {**dict(zip(labels, handles, strict=True)), **entries}
    longest = min(max(map(len, entries), default=1), _LONGEST_LABEL)
    columns = max(1, min(4, int(figure.get_figwidth() / (longest * _CHARACTER + _HANDLE))))
    # The legend gets room of its own: panels must not shrink to nothing above a long one.
    lines = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + lines * _LINE)
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def series_name(best: Best, results: Results) -> str:
    """Say what a line stands for: its reward, and its agent where there are several."""
    several = len({other.agent for other in results.bests}) > 1
    return f"{best.reward}, {best.agent}" if several else best.reward


def searched(bests: Sequence[Best]) -> list[Best]:
    """Keep one best of every search; a search with ranges of budgets has several."""
    return list({best.search_name: best for best in reversed(bests)}.values())[::-1]


def search_name(best: Best, results: Results) -> str:
    """Say what a line of a whole search stands for."""
    budgets = "all budgets" if best.limits else budget_text(best.budget)
    return f"{series_name(best, results)}, {budgets}"


def line_styles(labels: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Choose colour, marker and dash by label, the same for all figures with the same labels."""
    return {
        label: (
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _DASHES[index % len(_DASHES)],
        )
        for index, label in enumerate(dict.fromkeys(labels))
    }
