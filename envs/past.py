"""What a search has asked for so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Past"]


class Past:
    """The candidates that a search has asked for, and what became of them.

    It is state of the search and grows as candidates are judged. The run folder keeps the same for
    a resume; nobody reads it back in between.

    Attributes:
        best: The highest reward of a feasible candidate; minus infinity before there is one.
    """

    def __init__(self) -> None:
        self.best = -math.inf
        self._candidates: list[tuple[int, ...]] = []
        self._rewards: list[float] = []
        self._costs: list[Mapping[str, float]] = []
        self._arrays: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self._candidates)

    @property
    def candidates(self) -> NDArray[np.int64]:
        """In the order they were asked for, int64 [N, D]; [0, 0] before there is one."""
        return self._as_arrays()[0]

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards of these candidates, float64 [N]; not-a-number where the evaluation failed."""
        return self._as_arrays()[1]

    def costs(self, name: str) -> NDArray[np.float64]:
        """One cost of these candidates.

        Args:
            name: Name of the cost.

        Returns:
            Fractions of the dense network's cost, float64 [N]; not-a-number where the evaluation
            failed or does not report the cost.
        """
        return np.array([each.get(name, math.nan) for each in self._costs], dtype=np.float64)

    def append(
        self,
        candidates: Sequence[tuple[int, ...]],
        rewards: Sequence[float],
        costs: Sequence[Mapping[str, float]],
        feasible: Sequence[bool],
    ) -> None:
        """Add candidates that were judged together.

        Args:
            candidates: N candidates, in the order they were asked for.
            rewards: Their rewards; not-a-number where the evaluation failed.
            costs: Fractions of the dense network's costs by name; of a candidate whose evaluation
                failed none count.
            feasible: Whether each keeps every budget.
        """
        for candidate, reward, paid, kept in zip(candidates, rewards, costs, feasible, strict=True):
            self._candidates.append(tuple(int(value) for value in candidate))
            self._rewards.append(float(reward))
            self._costs.append(dict(paid) if math.isfinite(reward) else {})
            if kept:
                self.best = max(self.best, float(reward))
        self._arrays = None

    def _as_arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if self._arrays is None:
            decisions = len(self._candidates[0]) if self._candidates else 0
            self._arrays = (
                np.array(self._candidates, dtype=np.int64).reshape(len(self), decisions),
                np.array(self._rewards, dtype=np.float64),
            )
        return self._arrays
