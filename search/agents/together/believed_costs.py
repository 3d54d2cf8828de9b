"""What candidates are believed to cost, and candidates moved to where limits are kept.

Tabulated costs are looked up. Costs that only an evaluation reveals are learned from what a search
has evaluated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....envs.past import Past
from ....envs.problem import Problem
from .cost_surrogate import LearnedCost

__all__ = ["BelievedCosts"]

# A learned cost keeps its limit by so many errors of the model; 19 of 20 normal ones are smaller.
_ERRORS = 1.6
# The largest block that the model knows of is left in one move.
_REACH = 32
_MOVES_PER_DECISION = 4
_LOOKED_UP = 32


class BelievedCosts:
    """The costs of candidates as far as they are known without an evaluation.

    Costs that only an evaluation reveals are predicted from the past, plus 1.6 errors of the
    prediction (our choice); as long as they could not be learned nothing is believed of them.

    Args:
        problem: What is searched.
        past: What the search has asked for, as it is now.
        learn: Whether to learn; otherwise only tabulated costs are known.
    """

    def __init__(self, problem: Problem, past: Past, learn: bool = True) -> None:
        self._problem = problem
        self._learned: dict[int, LearnedCost] = {}
        for index, cost in enumerate(problem.budgeted):
            if learn and not cost.tabulated:
                model = LearnedCost.of_past(past, cost.name, problem.space.sizes)
                if model is not None:
                    self._learned[index] = model
        smallest = problem.space.smallest[None]
        self._growing = [
            (index, float(self._believed(index, smallest)[0]))
            for index, model in self._learned.items()
            if model.grows
        ]

    @property
    def learned(self) -> bool:
        """Whether a cost could be learned."""
        return bool(self._learned)

    @property
    def growing(self) -> bool:
        """Whether a cost could be learned that grows with the values."""
        return bool(self._growing)

    def keep(self, candidates: NDArray[np.int64], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether learned costs that grow with the values are believed to keep their limits.

        A limit below the cost of the smallest candidate counts as that cost: nothing keeps it.

        Args:
            candidates: int64 [N, D].
            limits: Limits of all budgets, float64 [N, B].

        Returns:
            bool [N].
        """
        kept = np.ones(len(candidates), dtype=np.bool_)
        for index, least in self._growing:
            kept &= self._believed(index, candidates) <= np.maximum(limits[:, index], least)
        return kept

    def violations(
        self, candidates: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """By what shares of their limits costs are believed to exceed them, summed over budgets.

        Args:
            candidates: int64 [N, D].
            limits: Limits of all budgets, float64 [N, B] or [B].

        Returns:
            float64 [N].
        """
        total = self._learned_violations(candidates, limits)
        for index, cost in enumerate(self._problem.budgeted):
            if cost.tabulated:
                total += _exceeded(cost.fraction(candidates), limits[..., index])
        return total

    def moved_to_limits(
        self, candidates: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Move candidates, as little as it takes, to where costs are believed to keep their limits.

        One decision at a time moves by up to 32, the one that lowers the sum of all violations
        most per share of its size that it moves, until there are none, or no move helps (greedily;
        our choice). Tabulated budgets count among the violations, so that one budget is not kept
        at the cost of another. Without a learned cost nothing moves.

        Args:
            candidates: int64 [N, D].
            limits: Limits of all budgets, float64 [N, B].

        Returns:
            int64 [N, D].
        """
        if not self.learned:
            return candidates
        moves = _Moves(self._problem)
        rows = [
            self._move(moves, row, limit) for row, limit in zip(candidates, limits, strict=True)
        ]
        return np.array(rows, dtype=np.int64)

    def _move(
        self, moves: _Moves, row: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        left = float(self.violations(row[None], limits)[0])
        for _ in range(_MOVES_PER_DECISION * len(row)):
            if left <= 0:
                break
            best, gain = self._best_move(*moves(row), limits, left)
            if gain <= 0:
                break
            row = best
            left = float(self.violations(row[None], limits)[0])
        return row

    def _best_move(
        self,
        moved: NDArray[np.int64],
        shares: NDArray[np.float64],
        limits: NDArray[np.float64],
        left: float,
    ) -> tuple[NDArray[np.int64], float]:
        """The candidate that gains most per share moved, and the gain.

        Tabulated costs, which take long, are looked up only where learned costs leave a chance:
        what they exceed makes a gain no larger.
        """
        bounds = (left - self._learned_violations(moved, limits)) / shares
        order = np.argsort(-bounds, kind="stable")
        best, most = order[0], -np.inf
        for start in range(0, len(order), _LOOKED_UP):
            if bounds[order[start]] <= most:
                break
            few = order[start : start + _LOOKED_UP]
            gains = (left - self.violations(moved[few], limits)) / shares[few]
            if gains.max() > most:
                best, most = few[gains.argmax()], float(gains.max())
        return moved[best], most

    def _learned_violations(
        self, candidates: NDArray[np.int64], limits: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The part of `violations` that comes from learned costs; looked up much faster."""
        total = np.zeros(len(candidates))
        for index in self._learned:
            total += _exceeded(self._believed(index, candidates), limits[..., index])
        return total

    def _believed(self, index: int, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        model = self._learned[index]
        return model.predict(candidates) + _ERRORS * model.error


class _Moves:
    """All moves of one decision by a few."""

    def __init__(self, problem: Problem) -> None:
        self._full, self._smallest = problem.space.sizes, problem.space.smallest
        steps = np.array([step for step in range(-_REACH, _REACH + 1) if step])
        decisions = len(self._full)
        self._decisions = np.repeat(np.arange(decisions), len(steps))
        self._steps = np.tile(steps, decisions)
        self._shares = np.abs(self._steps) / self._full[self._decisions]

    def __call__(self, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The candidates that are one move away, int64 [M, D], and the shares moved, [M]."""
        there = row[self._decisions] + self._steps
        least, most = self._smallest[self._decisions], self._full[self._decisions]
        possible = (there >= least) & (there <= most)
        moved = np.repeat(row[None], int(possible.sum()), axis=0)
        moved[np.arange(len(moved)), self._decisions[possible]] = there[possible]
        return moved, self._shares[possible]


def _exceeded(costs: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(0.0, costs / limits - 1.0))
