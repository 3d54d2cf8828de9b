"""Sensitivity: what narrowing each group alone costs in reward, and the widths that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .budget import minimum_widths
from .problem import PruningProblem

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
    """

    losses: NDArray[np.float64]

    @classmethod
    def fit(
        cls, problem: PruningProblem, widths: NDArray[np.int64], rewards: NDArray[np.float64]
    ) -> Sensitivity:
        """Read the losses off evaluated candidates.

        Losses are linear between the widths that were asked for, and below the narrowest of a
        group they grow twice as fast as they did before it (our choice).

        Args:
            problem: What is searched.
            widths: From :func:`narrowings`, int64 [K, G].
            rewards: Of these candidates, float64 [K].
        """
        sizes = problem.structure.sizes
        dense = rewards[0]
        losses = np.zeros((len(sizes), int(sizes.max()) + 1))
        for group, size in enumerate(sizes):
            mine = widths[:, group] < size
            points = {int(size): 0.0}
            points |= dict(
                zip(widths[mine, group].tolist(), (dense - rewards[mine]).tolist(), strict=True)
            )
            losses[group, : size + 1] = _convex(points, int(size))
        return cls(losses)

    def allocate(self, problem: PruningProblem, limits: NDArray[np.float64]) -> NDArray[np.int64]:
        """The widths that lose least, by the losses of single groups, within tabulated budgets.

        Units are given up one at a time, each where the reward lost for the cost saved is least,
        until every tabulated budget is met.

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
        budgets = [
            (cost, limit)
            for cost, limit in zip(problem.limited, limits, strict=True)
            if cost.tabulated
        ]
        widths = problem.structure.sizes.copy()
        groups = np.arange(len(widths))
        steps = np.eye(len(widths), dtype=np.int64)
        while True:
            shares = [float(cost.fraction(widths[None])[0]) / limit for cost, limit in budgets]
            exceeded = [
                (cost, limit, share)
                for (cost, limit), share in zip(budgets, shares, strict=True)
                if share > 1
            ]
            wider = widths > minimum
            if not exceeded or not wider.any():
                return widths
            narrower = np.maximum(widths - steps, minimum)
            saved = sum(share - cost.fraction(narrower) / limit for cost, limit, share in exceeded)
            lost = self.losses[groups, widths - wider] - self.losses[groups, widths]
            # A peak of memory falls only when several groups have given way: any step is a start.
            price = np.where(wider, lost / np.maximum(saved, 1e-12), np.inf)
            widths[int(price.argmin())] -= 1


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
