"""Sensitivity: what lowering each decision alone costs in reward, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ....envs.problem import Problem

__all__ = ["Sensitivity", "narrowings"]

# Below the narrowest width that was asked for, a unit costs so many times what it cost before.
_STEEPER = 2.0


def narrowings(problem: Problem, steps: int) -> NDArray[np.int64]:
    """Candidates that tell how sensitive decisions are: one of them lowered at a time.

    Args:
        problem: What is searched.
        steps: Values of every decision, evenly spaced between none and its size; at least 1.

    Returns:
        The dense candidate first, then at most ``steps`` different ones per decision, int64 [K, D].
    """
    sizes, smallest = problem.space.sizes, problem.space.smallest
    shares = np.arange(steps, 0, -1) / (steps + 1)
    candidates = [tuple(sizes.tolist())]
    for decision, size in enumerate(sizes):
        for value in np.clip(np.rint(shares * size).astype(np.int64), smallest[decision], size):
            narrowed = sizes.copy()
            narrowed[decision] = value
            candidates.append(tuple(narrowed.tolist()))
    return np.array(list(dict.fromkeys(candidates)), dtype=np.int64)


@dataclass(frozen=True)
class Sensitivity:
    """Reward lost by lowering each decision alone, made convex.

    If losses added up, giving up units where a FLOP saved costs least would lead to the best
    candidate of every budget: the sensitivity analysis of Li et al. (2017), solved as a knapsack.
    They do not add up, which is why this is where a search starts and not where it ends.

    Attributes:
        losses: The loss of every decision at each value, float64 [D, largest size + 1]; columns
            above a decision's size are 0, column 0 is infinite.
        costs: For the budgets on costs that only an evaluation reveals, by name, what each decision
            adds to the cost at each value, fractions of dense of the same shape.
    """

    losses: NDArray[np.float64]
    costs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        problem: Problem,
        candidates: NDArray[np.int64],
        rewards: NDArray[np.float64],
        costs: NDArray[np.float64] | None = None,
    ) -> Sensitivity:
        """Read the losses off evaluated candidates.

        Losses are linear between the values that were asked for, and below the lowest of a
        decision they grow twice as fast as they did before it (our choice). Costs are linear
        between them, too, and go on below the lowest as before it.

        Args:
            problem: What is searched.
            candidates: From `narrowings`, int64 [K, D].
            rewards: Rewards of these candidates, float64 [K].
            costs: Their costs by budget, float64 [K, B].
        """
        sizes = problem.space.sizes
        shape = (len(sizes), int(sizes.max()) + 1)
        losses = np.zeros(shape)
        for decision, size in enumerate(sizes):
            points = _changes(candidates, rewards[0] - rewards, decision, int(size))
            losses[decision, : size + 1] = _convex(points, int(size))
        measured = {} if costs is None else dict(zip(problem.budgeted, costs.T, strict=True))
        tables = {}
        for cost, values in measured.items():
            if not cost.tabulated:
                table = tables[cost.name] = np.zeros(shape)
                for decision, size in enumerate(sizes):
                    points = _changes(candidates, values - values[0], decision, int(size))
                    curve = values[0] / len(sizes) + _linear(points, int(size))
                    table[decision, : size + 1] = curve
        return cls(losses, tables)

    def allocate(self, problem: Problem, limits: NDArray[np.float64]) -> NDArray[np.int64]:
        """The candidates that lose least, by the losses of single decisions, within the budgets.

        Values are lowered by one at a time, each where the reward lost for the cost saved is least,
        until every tabulated budget is met, and every other one if what decisions add to its cost
        could be added up.

        Args:
            problem: Its space and budgets count.
            limits: Limits of all budgets, float64 [N, B].

        Returns:
            int64 [N, D].
        """
        different, which = np.unique(limits, axis=0, return_inverse=True)
        allocated = np.stack([self._allocate(problem, row) for row in different])
        return allocated[which.reshape(-1)]

    def _allocate(self, problem: Problem, limits: NDArray[np.float64]) -> NDArray[np.int64]:
        smallest = problem.space.smallest
        budgets = []
        for cost, limit in zip(problem.budgeted, limits, strict=True):
            if cost.tabulated:
                budgets.append((cost.fraction, limit))
            elif cost.name in self.costs:
                added_up = partial(self._added_up, cost.name)
                # A limit that lowering does not lead to would leave the smallest of everything.
                if added_up(smallest[None])[0] <= limit:
                    budgets.append((added_up, limit))
        candidate = problem.space.sizes.copy()
        decisions = np.arange(len(candidate))
        steps = np.eye(len(candidate), dtype=np.int64)
        while True:
            shares = [float(fraction(candidate[None])[0]) / limit for fraction, limit in budgets]
            exceeded = [
                (fraction, limit, share)
                for (fraction, limit), share in zip(budgets, shares, strict=True)
                if share > 1
            ]
            larger = candidate > smallest
            if not exceeded or not larger.any():
                return candidate
            lowered = np.maximum(candidate - steps, smallest)
            saved = sum(share - fraction(lowered) / limit for fraction, limit, share in exceeded)
            lost = self.losses[decisions, candidate - larger] - self.losses[decisions, candidate]
            # A peak of memory falls only when several decisions give way: any step is a start.
            price = np.where(larger, lost / np.maximum(saved, 1e-12), np.inf)
            candidate[int(price.argmin())] -= 1

    def _added_up(self, name: str, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        decisions = np.arange(candidates.shape[1])
        return np.asarray(self.costs[name][decisions, candidates].sum(axis=1))


def _changes(
    candidates: NDArray[np.int64], changes: NDArray[np.float64], decision: int, size: int
) -> dict[int, float]:
    """What lowering one decision alone changed, by its value."""
    mine = candidates[:, decision] < size
    lowered = zip(candidates[mine, decision].tolist(), changes[mine].tolist(), strict=True)
    return {size: 0.0, **dict(lowered)}


def _linear(points: dict[int, float], size: int) -> NDArray[np.float64]:
    """Linear between the points and below the least of them, float64 [size + 1]."""
    known = sorted(points)
    if len(known) > 1 and known[0] > 0:
        first, second = known[:2]
        slope = (points[second] - points[first]) / (second - first)
        points = {**points, 0: points[first] - slope * first}
        known.insert(0, 0)
    curve = np.interp(np.arange(size + 1), known, [points[value] for value in known])
    return np.asarray(curve, dtype=np.float64)


def _convex(points: dict[int, float], size: int) -> NDArray[np.float64]:
    """The largest convex curve below the points, float64 [size + 1]; infinite at 0."""
    kept: list[int] = []
    for value in sorted(points):
        while len(kept) > 1:
            a, b = kept[-2:]
            if (points[b] - points[a]) * (value - a) < (points[value] - points[a]) * (b - a):
                break
            kept.pop()
        kept.append(value)
    if len(kept) > 1 and kept[0] > 1:
        first, second = kept[:2]
        slope = _STEEPER * (points[first] - points[second]) / (second - first)
        points = {**points, 1: points[first] + max(slope, 0.0) * (first - 1)}
        kept.insert(0, 1)
    curve = np.interp(np.arange(size + 1), kept, [points[value] for value in kept])
    curve[0] = np.inf
    return np.asarray(curve, dtype=np.float64)
