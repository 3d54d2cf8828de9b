"""The report's pictures of what a run found and what it cost."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from ..._references import is_reference
from ..run.summary import Best
from .drawing import (
    line_styles,
    make_figure,
    search_name,
    searched,
    series_name,
    shared_legend,
)
from .fidelity import reward_fidelities
from .results import FLOPS_NOTE, Results, budget_text, cost_name, delivered_accuracy, number

__all__ = [
    "ALT_TEXTS",
    "accuracy_against_flops",
    "costs_over_iterations",
    "layer_widths",
    "learning_curves",
    "pareto_front",
    "rewards_against_accuracy",
]

# So many series still leave room for their legend inside the picture.
_FEW = 4
_PALE = "#B0B0B0"


def accuracy_against_flops(results: Results) -> Figure | None:
    """Draw all evaluations, their Pareto front, the bests after fine-tuning, and the dense network.

    Returns:
        The figure, or ``None`` when nothing has been evaluated.
    """
    points = [
        (evaluation.costs["flops"], results.validation_accuracy(widths))
        for widths, evaluation in results.evaluations.items()
        if "flops" in evaluation.costs and math.isfinite(results.validation_accuracy(widths))
    ]
    if not points:
        return None
    figure, (axes,) = make_figure(1, 4.6)
    xy = 100 * np.asarray(points)
    axes.scatter(
        xy[:, 0],
        xy[:, 1],
        s=9,
        c=_PALE,
        linewidths=0,
        rasterized=True,
        label="evaluations (validation)",
    )
    front = 100 * pareto_front(np.asarray(points))
    axes.step(*front.T, where="post", c="#606060", lw=1.2, label="their Pareto front")
    styles = line_styles([series_name(best, results) for best in results.bests])
    done = [
        best for best in results.bests if best.feasible and math.isfinite(delivered_accuracy(best))
    ]
    sizes = list(np.linspace(13, 7, max(len(styles), 2)))[::-1]
    for label, (colour, marker, _) in styles.items():
        chosen = [best for best in done if series_name(best, results) == label]
        if chosen:
            axes.plot(
                [100 * number(best.flops) / results.dense.flops for best in chosen],
                [100 * delivered_accuracy(best) for best in chosen],
                marker,
                # Hollow and of different sizes, so that equal results are all seen.
                mfc="none",
                mec=colour,
                mew=2,
                ms=sizes.pop(),
                label=f"{label}: best (test)",
            )
    if results.dense.test is not None:
        axes.plot(100, 100 * results.dense.test, "*", c="black", ms=14, label="dense (test)")
    # A few ruined candidates must not squeeze everything that matters into one line.
    lowest = float(np.quantile(xy[:, 1], 0.05))
    tested = [*(delivered_accuracy(best) for best in done), results.dense.test or 0.0]
    highest = max(float(xy[:, 1].max()), *(100 * accuracy for accuracy in tested))
    axes.set_ylim(lowest - 1.0, min(highest + 0.06 * (highest - lowest) + 0.5, 100.5))
    axes.set_xlabel("FLOPs, % of dense (2 x multiply-accumulates, batch 1)")
    axes.set_ylabel("accuracy, %")
    if len(styles) <= _FEW:
        axes.legend(loc="lower right")
    else:
        shared_legend(figure, [axes])
    return figure


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Keep the points that no other one beats in both, by rising cost.

    Args:
        points: (cost, accuracy), shape [N, 2].

    Returns:
        Shape [M, 2]; cost and accuracy both rise strictly.
    """
    order = np.lexsort((-points[:, 1], points[:, 0]))
    kept: list[np.ndarray] = []
    for point in points[order]:
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.asarray(kept)


def learning_curves(results: Results) -> Figure | None:
    """Draw the validation accuracy of the best feasible candidate so far, by each search's reward.

    Returns:
        One panel a budget, or ``None`` without histories. A thin line is one seed, the thick one
        their median.
    """
    trials = [best for best in results.bests if results.histories.get(best.search_name)]
    budgets = list(dict.fromkeys(budget_text(best.budget) for best in trials))
    if not budgets:
        return None
    figure, panels = make_figure(len(budgets), 3.6)
    styles = line_styles([series_name(best, results) for best in trials])
    for budget, axes in zip(budgets, panels, strict=True):
        for label, (colour, _, dash) in styles.items():
            curves = [
                _curve(best, results)
                for best in trials
                if budget_text(best.budget) == budget and series_name(best, results) == label
            ]
            if not curves:
                continue
            for curve in curves:
                axes.plot(100 * curve, dash, c=colour, lw=0.7, alpha=0.5)
            shortest = min(map(len, curves))
            with np.errstate(all="ignore"):
                middle = np.median([curve[:shortest] for curve in curves], axis=0)
            axes.plot(100 * middle, dash, c=colour, lw=2, label=label)
        axes.set_title(budget)
        axes.set_xlabel("candidates asked for")
    panels[0].set_ylabel("validation accuracy, %")
    shared_legend(figure, panels)
    return figure


def _curve(best: Best, results: Results) -> np.ndarray:
    """Compute the incumbent's accuracy after each candidate; NaN before the first feasible one."""
    accuracy, highest = math.nan, -math.inf
    curve = []
    for asked in results.histories[best.search_name]:
        kept = asked.keeps(best.limits) if best.limits else asked.feasible
        if kept and asked.reward > highest:
            highest = asked.reward
            accuracy = results.validation_accuracy(asked.candidate)
        curve.append(accuracy)
    return np.asarray(curve)


def layer_widths(results: Results) -> Figure | None:
    """Draw the width of every channel group in the bests of the first seed, one panel a budget."""
    groups = results.dense.groups
    bests = [best for best in results.bests if best.candidate is not None]
    seeds = dict.fromkeys(best.seed for best in bests)
    if not seeds:
        return None
    first = next(iter(seeds))
    bests = [best for best in bests if best.seed == first]
    budgets = list(dict.fromkeys(budget_text(best.budget) for best in bests))
    figure, panels = make_figure(len(budgets), 3.9)
    styles = line_styles([series_name(best, results) for best in results.bests])
    sizes = np.asarray(list(groups.values()))
    for budget, axes in zip(budgets, panels, strict=True):
        for best in bests:
            if budget_text(best.budget) == budget:
                label = series_name(best, results)
                colour, marker, dash = styles[label]
                share = 100 * np.asarray(best.candidate or ()) / sizes
                axes.plot(share, dash, marker=marker, ms=4, c=colour, label=label)
        axes.set_title(budget)
        axes.set_ylim(0, 105)
        step = max(1, len(groups) // 16)
        axes.set_xticks(range(0, len(groups), step), list(groups)[::step], rotation=90, fontsize=7)
    panels[0].set_ylabel("width, % of dense")
    shared_legend(figure, panels)
    return figure


def costs_over_iterations(results: Results) -> Figure | None:
    """Draw the mean cost of the candidates, by cost and budget, against candidates asked for."""
    trials = [best for best in searched(results.bests) if results.histories.get(best.search_name)]
    names = list(dict.fromkeys(cost for best in trials for cost in best.budget))
    if not names:
        return None
    figure, panels = make_figure(len(names), 3.4)
    styles = line_styles([search_name(best, results) for best in trials])
    for name, axes in zip(names, panels, strict=True):
        drawn = set()
        # Of the user's own costs nobody knows whether there are fractions of the dense network's.
        scale = 1 if is_reference(name) else 100
        for best in trials:
            history = results.histories[best.search_name]
            values = np.asarray([asked.costs.get(name, math.nan) for asked in history])
            # Means over a fortieth of the search: single candidates are an unreadable cloud.
            pieces = np.array_split(values, min(40, len(values)))
            at = np.cumsum([len(piece) for piece in pieces])
            label = search_name(best, results)
            colour, _, dash = styles[label]
            shown = "_nolegend_" if label in drawn else label
            drawn.add(label)
            means = [scale * piece.mean() for piece in pieces]
            axes.plot(at, means, dash, c=colour, lw=1.4, label=shown)
        for limit in {best.budget.get(name) for best in results.bests}:
            if isinstance(limit, (int, float)) and limit <= 1:
                axes.axhline(scale * limit, c="black", lw=0.8, ls=(0, (1, 3)))
        unit = "of dense, or as it is" if is_reference(name) else "% of dense"
        axes.set_title(f"{cost_name(name)}, {unit} (dotted: the budgets)")
        axes.set_xlabel("candidates asked for")
    shared_legend(figure, panels)
    return figure


def rewards_against_accuracy(results: Results) -> Figure | None:
    """Draw how well every reward ranks accuracy after fine-tuning, one panel a budget.

    Returns:
        The figure, or ``None`` when too few candidates were fine-tuned.
    """
    known = [each for each in reward_fidelities(results) if math.isfinite(each.correlation)]
    budgets = list(dict.fromkeys(each.budget for each in known))
    if not budgets:
        return None
    figure, panels = make_figure(len(budgets), 3.4)
    names = list(dict.fromkeys(each.reward for each in known))[::-1]
    for budget, axes in zip(budgets, panels, strict=True):
        for each in known:
            if each.budget == budget:
                height = names.index(each.reward)
                if each.low is not None and each.high is not None:
                    axes.plot([each.low, each.high], [height, height], c="black", lw=1.5)
                fill = "black" if each.compared else "white"
                axes.plot(each.correlation, height, "o", ms=7, mec="black", mfc=fill)
        axes.axvline(0, c="black", lw=0.8, ls=(0, (1, 3)))
        axes.set_xlim(-1.05, 1.05)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(budget)
        axes.set_xlabel("rank correlation with test accuracy")
    return figure


ALT_TEXTS = {
    "accuracy_vs_flops": f"Accuracy against FLOPs with the Pareto front. {FLOPS_NOTE}",
    "learning_curves": "Learning curves: validation accuracy against candidates asked for.",
    "layer_widths": "Width of every channel group in the best candidates, in percent of dense.",
    "costs": "Mean cost of the candidates as the searches went on.",
    "multipliers": "Lagrange multipliers by iteration.",
    "policies": "Mean reward and entropy of the policies by iteration.",
    "reward_fidelity": "Rank correlation of every reward with accuracy after fine-tuning.",
}
"""What each picture shows, for those who do not see it."""
