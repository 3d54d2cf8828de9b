"""Sensitivity: what narrowing each group alone costs in reward, and the widths that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....envs.budgets import minimum_widths
from ....envs.problem import PruningProblem

__all__ = ["Sensitivity", "narrowings"]

# Below the narrowest width that was asked for, a unit costs so many times what it cost before.
_STEEPER = 2.0


def narrowings(problem: PruningProblem, steps: int) -> NDArray[np.int64]:
    """Candidates that tell how sensitive groups are: one group narrowed at a time.

    Args:
        problem: What is searched.
        steps: Widths of every group, evenly spaced between none and all of its units; at least 1.

    Returns:
        The dense widths first, then at most ``steps`` different candidates per group, int64 [K, G].
    """
    sizes = problem.structure.sizes
    minimum = minimum_widths(problem.structure, problem.smallest)
    shares = np.arange(steps, 0, -1) / (steps + 1)
    candidates = [tuple(sizes.tolist())]
    for group, size in enumerate(sizes):
        for width in np.clip(np.rint(shares * size).astype(np.int64), minimum[group], size):
            narrowed = sizes.copy()
            narrowed[group] = width
            candidates.append(tuple(narrowed.tolist()))
    return np.array(list(dict.fromkeys(candidates)), dtype=np.int64)


@dataclass(frozen=True)
class Sensitivity:
    """Reward lost by narrowing each group alone, made convex.

    If losses added up, giving up units where a FLOP saved costs least would lead to the best
    candidate of every budget: the sensitivity analysis of Li et al. (2017), solved as a knapsack.
    They do not add up, which is why this is where a search starts and not where it ends.

    Attributes:
        losses: For every group the loss at each width, float64 [G, size of the largest + 1];
            columns above a group's size are 0, column 0 is infinite.
        costs: For the budgets on costs that only an evaluation reveals, by name, what each group
            adds to the cost at each width, fractions of dense of the same shape.
    """

    losses: NDArray[np.float64]
    costs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        problem: PruningProblem,
        widths: NDArray[np.int64],
        rewards: NDArray[np.float64],
        costs: NDArray[np.float64] | None = None,
    ) -> Sensitivity:
        """Read the losses off evaluated candidates.

        Losses are linear between the widths that were asked for, and below the narrowest of a
        group they grow twice as fast as they did before it (our choice). Costs are linear between
        them, too, and go on below the narrowest as before it.

        Args:
            problem: What is searched.
            widths: From :func:`narrowings`, int64 [K, G].
            rewards: Of these candidates, float64 [K].
            costs: Of these candidates and all budgets, float64 [K, B].
        """
        sizes = problem.structure.sizes
        shape = (len(sizes), int(sizes.max()) + 1)
        losses = np.zeros(shape)
        for group, size in enumerate(sizes):
            points = _changes(widths, rewards[0] - rewards, group, int(size))
            losses[group, : size + 1] = _convex(points, int(size))
        measured = {} if costs is None else dict(zip(problem.limited, costs.T, strict=True))
        tables = {}
        for cost, values in measured.items():
            if not cost.tabulated:
                table = tables[cost.name] = np.zeros(shape)
                for group, size in enumerate(sizes):
                    points = _changes(widths, values - values[0], group, int(size))
                    table[group, : size + 1] = values[0] / len(sizes) + _linear(points, int(size))
        return cls(losses, tables)

    def allocate(self, problem: PruningProblem, limits: NDArray[np.float64]) -> NDArray[np.int64]:
        """The widths that lose least, by the losses of single groups, within the budgets.

        Units are given up one at a time, each where the reward lost for the cost saved is least,
        until every tabulated budget is met, and every other one if what groups add to its cost
        could be added up.

        Args:
            problem: Its structure and budgets.
            limits: Of all budgets, float64 [N, B].

        Returns:
            Units kept, int64 [N, G].
        """
        different, which = np.unique(limits, axis=0, return_inverse=True)
        allocated = np.stack([self._allocate(problem, row) for row in different])
        return allocated[which.reshape(-1)]

    def _allocate(self, problem: PruningProblem, limits: NDArray[np.float64]) -> NDArray[np.int64]:
        minimum = minimum_widths(problem.structure, problem.smallest)
        budgets = []
        for cost, limit in zip(problem.limited, limits, strict=True):
            if cost.tabulated:
                budgets.append((cost.fraction, limit))
            elif cost.name in self.costs:
                added_up = partial(self._added_up, cost.name)
                # A limit that narrowing does not lead to would leave one unit of everything.
                if added_up(minimum[None])[0] <= limit:
                    budgets.append((added_up, limit))
        widths = problem.structure.sizes.copy()
        groups = np.arange(len(widths))
        steps = np.eye(len(widths), dtype=np.int64)
        while True:
            shares = [float(fraction(widths[None])[0]) / limit for fraction, limit in budgets]
            exceeded = [
                (fraction, limit, share)
                for (fraction, limit), share in zip(budgets, shares, strict=True)
                if share > 1
            ]
            wider = widths > minimum
            if not exceeded or not wider.any():
                return widths
            narrower = np.maximum(widths - steps, minimum)
            saved = sum(share - fraction(narrower) / limit for fraction, limit, share in exceeded)
            lost = self.losses[groups, widths - wider] - self.losses[groups, widths]
            # A peak of memory falls only when several groups have given way: any step is a start.
            price = np.where(wider, lost / np.maximum(saved, 1e-12), np.inf)
            widths[int(price.argmin())] -= 1

    def _added_up(self, name: str, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self.costs[name][np.arange(widths.shape[1]), widths].sum(axis=1))


def _changes(
    widths: NDArray[np.int64], changes: NDArray[np.float64], group: int, size: int
) -> dict[int, float]:
    """What narrowing one group alone changed, by its width."""
    mine = widths[:, group] < size
    narrowed = zip(widths[mine, group].tolist(), changes[mine].tolist(), strict=True)
    return {size: 0.0, **dict(narrowed)}


def _linear(points: dict[int, float], size: int) -> NDArray[np.float64]:
    """Linear between the points and below the least of them, float64 [size + 1]."""
    known = sorted(points)
    if len(known) > 1 and known[0] > 0:
        first, second = known[:2]
        slope = (points[second] - points[first]) / (second - first)
        points = {**points, 0: points[first] - slope * first}
        known.insert(0, 0)
    curve = np.interp(np.arange(size + 1), known, [points[width] for width in known])
    return np.asarray(curve, dtype=np.float64)


def _convex(points: dict[int, float], size: int) -> NDArray[np.float64]:
    """The largest convex curve below the points, float64 [size + 1]; infinite at width 0."""
    kept: list[int] = []
    for width in sorted(points):
        while len(kept) > 1:
            a, b = kept[-2:]
            if (points[b] - points[a]) * (width - a) < (points[width] - points[a]) * (b - a):
                break
            kept.pop()
        kept.append(width)
    if len(kept) > 1 and kept[0] > 1:
        first, second = kept[:2]
        slope = _STEEPER * (points[first] - points[second]) / (second - first)
        points = {**points, 1: points[first] + max(slope, 0.0) * (first - 1)}
        kept.insert(0, 1)
    curve = np.interp(np.arange(size + 1), kept, [points[width] for width in kept])
    curve[0] = np.inf
    return np.asarray(curve, dtype=np.float64)
