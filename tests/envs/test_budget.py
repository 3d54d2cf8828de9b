"""Budgets as users write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from prunetune.envs.budgets import Budget, front_limits, parse_budgets
from prunetune.errors import BudgetError, UnknownNameError
from prunetune.models.costs.activation_memory import ActivationMemoryCost, ActivationTable
from prunetune.models.costs.cost import Cost, MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.latency import LatencyCost, LatencyTable
from prunetune.models.costs.tables import Structure

from .structures import chain, channels

STRUCTURE = chain([16, 32, 32])


def _read(
    written: Mapping[str, Any], *costs: Cost, structure: Structure = STRUCTURE
) -> tuple[Budget, ...]:
    known = {**counted_costs(structure), **{cost.name: cost for cost in costs}}
    return parse_budgets(written, channels(structure), known)


@pytest.mark.parametrize("written", [0.5, "0.5", "50%", " 50 % "])
def test_relative_limits_are_fractions_of_dense(written: float | str) -> None:
    assert _read({"flops": written}) == (Budget("flops", 0.5),)


def test_an_absolute_limit_is_divided_by_the_dense_cost() -> None:
    half = STRUCTURE.dense_flops / 2
    for written in (f"{half / 1e6}M", f"{half / 1e3}k", f"{half / 1e9}G", half):
        (budget,) = _read({"flops": written})
        assert budget.limit == pytest.approx(0.5)
    (params,) = _read({"params": f"{STRUCTURE.dense_params / 4e3}k"})
    assert params.limit == pytest.approx(0.25)


def test_several_budgets_keep_their_order() -> None:
    parsed = _read({"params": 0.4, "flops": "0.5"})
    assert [budget.cost for budget in parsed] == ["params", "flops"]


@pytest.mark.parametrize(
    "written",
    [0, "0", -0.5, "-3M", 1.5, "50", "110%", "900G", "half", "", "nan", float("nan"), float("inf"),
     True, None, [0.5]],
)  # fmt: skip
def test_a_limit_that_means_nothing_is_refused(written: object) -> None:
    with pytest.raises(BudgetError, match="flops"):
        _read({"flops": written})


def test_no_budget_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one"):
        _read({})


def test_an_unknown_cost_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="'flops'"):
        _read({"flop": 0.5})


def test_an_unreachable_limit_says_the_smallest_reachable_one() -> None:
    smallest = STRUCTURE.flops(np.ones(3, dtype=np.int64)) / STRUCTURE.dense_flops
    with pytest.raises(BudgetError) as caught:
        _read({"flops": float(smallest) * 0.9})
    offered = float(str(caught.value).split("costs ")[1].split()[0])
    assert smallest <= offered <= smallest + 1e-4
    assert _read({"flops": offered})


def test_a_measured_cost_takes_relative_limits_and_absolute_ones_once_measured() -> None:
    unmeasured = MeasuredCost("memory")
    assert _read({"memory": 0.1}, unmeasured) == (Budget("memory", 0.1),)
    with pytest.raises(BudgetError, match="not known"):
        _read({"memory": "5k"}, unmeasured)
    (budget,) = _read({"memory": "5k"}, MeasuredCost("memory", 10_000.0))
    assert budget.limit == pytest.approx(0.5)


MEMORY = ActivationMemoryCost(ActivationTable(((1000, 0, 0),), (4000,)), STRUCTURE.sizes)


@pytest.mark.parametrize("written", ["10kB", "10 kb", "0.01MB", "10000 B", "10000", 0.5])
def test_memory_limits_have_bytes(written: str | float) -> None:
    # 16 units of 1000 bytes and 4000 that no width changes.
    (budget,) = _read({"activation-memory": written}, MEMORY)
    assert budget.limit == pytest.approx(0.5)


def test_an_unreachable_memory_limit_is_answered_in_bytes() -> None:
    with pytest.raises(BudgetError, match=r"costs 0\.2500 of the dense network \(5kB\)"):
        _read({"activation-memory": "4.9kB"}, MEMORY)
    with pytest.raises(BudgetError, match="unknown unit; write one of GB, MB, kB, B"):
        _read({"activation-memory": "5ms"}, MEMORY)


def test_latency_limits_have_seconds() -> None:
    layers = len(STRUCTURE.layers)
    nothing = (((0.0, 0.0), (0.0, 0.0)),) * layers
    knots = ((0, 1),) * layers
    cost = LatencyCost(STRUCTURE, LatencyTable(knots, knots, nothing, 0.01, 0.0))
    for written in ("10ms", "10000us", "0.01s"):
        (budget,) = _read({"latency": written}, cost)
        assert budget.limit == pytest.approx(1.0)
    with pytest.raises(BudgetError, match=r"costs 1\.0000 of the dense network \(10ms\)"):
        _read({"latency": "9ms"}, cost)
    with pytest.raises(BudgetError, match="with its unit \\(5ms\\)"):
        _read({"latency": 5}, cost)


@pytest.mark.parametrize(("dense", "limit"), [(0.0, 3.0), (2.0, 1.5)])
@pytest.mark.parametrize("written", [3, "3", "3 layers"])
def test_a_users_own_cost_may_be_counted_in_its_own_unit(
    written: object, dense: float, limit: float
) -> None:
    (budget,) = _read({"odd.py:odd": written}, MeasuredCost("odd.py:odd", dense))
    assert budget.limit == limit


def test_there_is_no_fraction_of_nothing() -> None:
    with pytest.raises(BudgetError, match="which is 0; give an absolute limit"):
        _read({"odd": 0.5}, MeasuredCost("odd", 0.0))


def test_budgets_that_contradict_the_smallest_width_say_so() -> None:
    space = channels(STRUCTURE).keeping(0.9, ["channels"])
    with pytest.raises(BudgetError, match="or lower smallest"):
        parse_budgets({"flops": 0.5}, space, counted_costs(STRUCTURE))


def test_a_pair_is_a_range_whose_ends_are_read_like_single_limits() -> None:
    structure = chain([16, 32])
    (budget,) = _read({"flops": ["30%", 0.7]}, structure=structure)
    assert (budget.lowest, budget.limit) == (0.3, 0.7)
    assert front_limits([budget]).ravel().tolist() == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    budgets = _read({"flops": (0.2, 0.6), "params": 0.5}, structure=structure)
    # Ranges move together; single limits stay.
    assert front_limits(budgets)[[0, 2, 4]].tolist() == [
        pytest.approx([0.2, 0.5]),
        pytest.approx([0.4, 0.5]),
        pytest.approx([0.6, 0.5]),
    ]
    single = _read({"flops": 0.5}, structure=structure)
    assert single[0].lowest is None and front_limits(single).tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ((0.7, 0.2), "write the smaller one first"),
        ((0.5, 0.5), "write the smaller one first"),
        ((1e-6, 0.5), "cannot be reached"),
        ((0.5, "much"), "is not a limit"),
    ],
)
def test_a_range_that_means_nothing_is_refused(written: tuple[object, object], said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        _read({"flops": written}, structure=chain([16, 32]))
