"""Candidates moved to where costs that only an evaluation reveals are believed to keep limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....envs.budgets import minimum_widths
from ....envs.problem import PruningProblem
from .believed import BelievedCosts

__all__ = ["settle"]

# The largest block that the model knows of is left in one move.
_REACH = 32
_MOVES_PER_GROUP = 4
_LOOKED_UP = 32


def settle(
    problem: PruningProblem,
    believed: BelievedCosts,
    widths: NDArray[np.int64],
    limits: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Move candidates, as little as it takes, to where costs are believed to keep their limits.

    One group at a time moves by up to 32 units, the one that lowers the sum of all violations most
    per share of the group that it moves, until there are none, or no move helps (greedily; our
    choice). Tabulated budgets count among the violations, so that one budget is not kept at the
    cost of another.

    Args:
        problem: What is searched.
        believed: What its candidates cost; without a learned cost nothing moves.
        widths: Units kept, int64 [N, G].
        limits: Of all budgets, float64 [N, B].

    Returns:
        Units kept, int64 [N, G].
    """
    if not believed.learned:
        return widths
    moves = _Moves(problem)
    rows = [
        _settle_one(believed, moves, row, limit) for row, limit in zip(widths, limits, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


class _Moves:
    """All moves of one group by a few units."""

    def __init__(self, problem: PruningProblem) -> None:
        self._full = problem.structure.sizes
        self._minimum = minimum_widths(problem.structure, problem.smallest)
        steps = np.array([step for step in range(-_REACH, _REACH + 1) if step])
        groups = len(self._full)
        self._groups, self._steps = np.repeat(np.arange(groups), len(steps)), np.tile(steps, groups)
        self._shares = np.abs(self._steps) / self._full[self._groups]

    def __call__(self, row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The candidates that are one move away, int64 [M, G], and the shares moved, [M]."""
        there = row[self._groups] + self._steps
        least, most = self._minimum[self._groups], self._full[self._groups]
        possible = (there >= least) & (there <= most)
        moved = np.repeat(row[None], int(possible.sum()), axis=0)
        moved[np.arange(len(moved)), self._groups[possible]] = there[possible]
        return moved, self._shares[possible]


def _settle_one(
    believed: BelievedCosts,
    moves: _Moves,
    row: NDArray[np.int64],
    limits: NDArray[np.float64],
) -> NDArray[np.int64]:
    left = float(believed.violations(row[None], limits)[0])
    for _ in range(_MOVES_PER_GROUP * len(row)):
        if left <= 0:
            break
        best, gain = _best_move(believed, *moves(row), limits, left)
        if gain <= 0:
            break
        row = best
        left = float(believed.violations(row[None], limits)[0])
    return row


def _best_move(
    believed: BelievedCosts,
    moved: NDArray[np.int64],
    shares: NDArray[np.float64],
    limits: NDArray[np.float64],
    left: float,
) -> tuple[NDArray[np.int64], float]:
    """The candidate that gains most per share moved, and the gain.

    Tabulated costs, which take long, are looked up only where learned costs leave a chance: what
    they exceed makes a gain no larger.
    """
    bounds = (left - believed.learned_violations(moved, limits)) / shares
    order = np.argsort(-bounds, kind="stable")
    best, most = order[0], -np.inf
    for start in range(0, len(order), _LOOKED_UP):
        if bounds[order[start]] <= most:
            break
        few = order[start : start + _LOOKED_UP]
        gains = (left - believed.violations(moved[few], limits)) / shares[few]
        if gains.max() > most:
            best, most = few[gains.argmax()], float(gains.max())
    return moved[best], most
