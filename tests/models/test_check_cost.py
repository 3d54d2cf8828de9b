"""Costs of ours pass their conformance check, and faulty ones are told what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from prunetune.models.costs.activation_memory import ActivationMemoryCost, ActivationTable
from prunetune.models.costs.cost import Cost, MeasuredCost
from prunetune.models.space import Decision, SearchSpace
from prunetune.testing import check_cost

SPACE = SearchSpace((Decision("a", "channels", 8), Decision("b", "channels", 16)))


class _Mean(Cost):
    """The share of units that are kept."""

    name = "mean"
    dense: float | None = 24.0
    tabulated = True

    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(candidates.sum(axis=1) / 24.0)

    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(candidates / 24.0)


def test_good_costs_pass() -> None:
    check_cost(_Mean(), SPACE)
    table = ActivationTable(((4, 2), (1, 9)), (10, 0))
    check_cost(ActivationMemoryCost(table, SPACE.sizes), SPACE)


class _Falls(_Mean):
    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(24.0 / candidates.sum(axis=1))


class _NotWhole(_Mean):
    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(candidates / 25.0)


class _LooksAhead(_Mean):
    def shares(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(candidates[:, ::-1] / 24.0)


class _Infinite(_Mean):
    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(len(candidates), np.inf)


class _Doubled(_Mean):
    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return 2 * super().fraction(candidates)


class _OneNumber(_Mean):
    def fraction(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.ones(1)


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (_Falls(), "keeps more"),
        (_NotWhole(), "do not add up"),
        (_LooksAhead(), "depends on decisions after it"),
        (_Infinite(), "not finite"),
        (_Doubled(), "must be 1"),
        (_OneNumber(), "one number a candidate"),
        (MeasuredCost("measured"), "not tabulated"),
    ],
)
def test_what_is_wrong_is_said(cost: Cost, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_cost(cost, SPACE)
