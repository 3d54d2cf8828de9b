"""Pictures of what an agent does from iteration to iteration, from Tune's own logs."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from .drawing import line_styles, make_figure, search_name, searched, shared_legend
from .results import Results, cost_name

__all__ = ["multipliers_over_iterations", "policies_over_iterations"]


def multipliers_over_iterations(results: Results) -> Figure | None:
    """Draw the Lagrange multipliers of every trial that has some."""
    trials = [b for b in searched(results.bests) if results.multipliers.get(b.search_name)]
    if not trials:
        return None
    figure, (axes,) = make_figure(1, 3.4)
    labels = [search_name(best, results) for best in trials]
    styles = line_styles(labels)
    drawn = set()
    for best, label in zip(trials, labels, strict=True):
        colour, _, dash = styles[label]
        rows = results.multipliers[best.search_name]
        for cost in rows[0]:
            shown = "_nolegend_" if (label, cost) in drawn else f"{label}: {cost_name(cost)}"
            drawn.add((label, cost))
            values = [row.get(cost, math.nan) for row in rows]
            axes.plot(range(1, len(rows) + 1), values, dash, c=colour, lw=1.4, label=shown)
    axes.set_xlabel("iteration")
    axes.set_ylabel("multiplier")
    shared_legend(figure, [axes])
    return figure


def policies_over_iterations(results: Results) -> Figure | None:
    """Draw the mean reward of the candidates that a policy sampled, and its entropy.

    Returns:
        Two panels, or ``None`` when no agent has a policy.
    """
    trials = [b for b in searched(results.bests) if results.policies.get(b.search_name)]
    if not trials:
        return None
    figure, panels = make_figure(2, 3.4, shared=False)
    labels = [search_name(best, results) for best in trials]
    styles = line_styles(labels)
    titles = {"return": "mean reward of the candidates", "entropy": "entropy of the policy, nats"}
    for (figure_name, title), axes in zip(titles.items(), panels, strict=True):
        drawn = set()
        for best, label in zip(trials, labels, strict=True):
            colour, _, dash = styles[label]
            rows = results.policies[best.search_name]
            values = [row.get(figure_name, math.nan) for row in rows]
            shown = "_nolegend_" if label in drawn else label
            drawn.add(label)
            axes.plot(range(1, len(rows) + 1), values, dash, c=colour, lw=1.4, label=shown)
        axes.set_title(title)
        axes.set_xlabel("iteration")
    shared_legend(figure, panels)
    return figure
