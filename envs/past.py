"""What a search has asked for so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Past"]


@dataclass(frozen=True)
class Past:
    """Candidates that a search asked for in earlier iterations, and what became of them.

    Attributes:
        candidates: int64 [N, D], in the order they were asked for.
        rewards: Of these candidates, float64 [N]; not-a-number where the evaluation failed.
        costs: Fractions of dense by name of the cost, float64 [N]; not-a-number where the
            evaluation failed.
    """

    candidates: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    rewards: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    costs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
