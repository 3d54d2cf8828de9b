"""Budgets as users write them."""

from __future__ import annotations

import numpy as np
import pytest
from prunetune.envs.budgets import Budget, front_limits, parse_budgets
from prunetune.errors import BudgetError, UnknownNameError
from prunetune.models.costs.activation_memory import ActivationTable
from prunetune.models.costs.cost import ActivationMemoryCost, LatencyCost, MeasuredCost
from prunetune.models.costs.latency import LatencyTable

from .structures import chain

STRUCTURE = chain([16, 32, 32])


@pytest.mark.parametrize("written", [0.5, "0.5", "50%", " 50 % "])
def test_relative_limits_are_fractions_of_dense(written: float | str) -> None:
    assert parse_budgets({"flops": written}, STRUCTURE) == (Budget("flops", 0.5),)


def test_an_absolute_limit_is_divided_by_the_dense_cost() -> None:
    half = STRUCTURE.dense_flops / 2
    for written in (f"{half / 1e6}M", f"{half / 1e3}k", f"{half / 1e9}G", half):
        (budget,) = parse_budgets({"flops": written}, STRUCTURE)
        assert budget.limit == pytest.approx(0.5)
    (params,) = parse_budgets({"params": f"{STRUCTURE.dense_params / 4e3}k"}, STRUCTURE)
    assert params.limit == pytest.approx(0.25)


def test_several_budgets_keep_their_order() -> None:
    parsed = parse_budgets({"params": 0.4, "flops": "0.5"}, STRUCTURE)
    assert [budget.cost for budget in parsed] == ["params", "flops"]


@pytest.mark.parametrize(
    "written",
    [0, "0", -0.5, "-3M", 1.5, "50", "110%", "900G", "half", "", "nan", float("nan"), float("inf"),
     True, None, [0.5]],
)  # fmt: skip
def test_a_limit_that_means_nothing_is_refused(written: object) -> None:
    with pytest.raises(BudgetError, match="flops"):
        parse_budgets({"flops": written}, STRUCTURE)  # type: ignore[dict-item]


def test_no_budget_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one"):
        parse_budgets({}, STRUCTURE)


def test_an_unknown_cost_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="'flops'"):
        parse_budgets({"flop": 0.5}, STRUCTURE)


def test_an_unreachable_limit_says_the_smallest_reachable_one() -> None:
    smallest = STRUCTURE.flops(np.ones(3, dtype=np.int64)) / STRUCTURE.dense_flops
    with pytest.raises(BudgetError) as caught:
        parse_budgets({"flops": float(smallest) * 0.9}, STRUCTURE)
    offered = float(str(caught.value).split("costs ")[1].split()[0])
    assert smallest <= offered <= smallest + 1e-4
    assert parse_budgets({"flops": offered}, STRUCTURE)


def test_a_measured_cost_takes_relative_limits_and_absolute_ones_once_measured() -> None:
    unmeasured = MeasuredCost("memory")
    assert parse_budgets({"memory": 0.1}, STRUCTURE, [unmeasured]) == (Budget("memory", 0.1),)
    with pytest.raises(BudgetError, match="not known"):
        parse_budgets({"memory": "5k"}, STRUCTURE, [unmeasured])
    (budget,) = parse_budgets({"memory": "5k"}, STRUCTURE, [MeasuredCost("memory", 10_000.0)])
    assert budget.limit == pytest.approx(0.5)


MEMORY = ActivationMemoryCost(ActivationTable(((1000, 0, 0),), (4000,)), STRUCTURE.sizes)


@pytest.mark.parametrize("written", ["10kB", "10 kb", "0.01MB", "10000 B", "10000", 0.5])
def test_memory_limits_have_bytes(written: str | float) -> None:
    # 16 units of 1000 bytes and 4000 that no width changes.
    (budget,) = parse_budgets({"activation-memory": written}, STRUCTURE, [MEMORY])
    assert budget.limit == pytest.approx(0.5)


def test_an_unreachable_memory_limit_is_answered_in_bytes() -> None:
    with pytest.raises(BudgetError, match=r"costs 0\.2500 of the dense network \(5kB\)"):
        parse_budgets({"activation-memory": "4.9kB"}, STRUCTURE, [MEMORY])
    with pytest.raises(BudgetError, match="unknown unit; write one of GB, MB, kB, B"):
        parse_budgets({"activation-memory": "5ms"}, STRUCTURE, [MEMORY])


def test_latency_limits_have_seconds() -> None:
    layers = len(STRUCTURE.layers)
    nothing = (((0.0, 0.0), (0.0, 0.0)),) * layers
    knots = ((0, 1),) * layers
    cost = LatencyCost(STRUCTURE, LatencyTable(knots, knots, nothing, 0.01, 0.0))
    for written in ("10ms", "10000us", "0.01s"):
        (budget,) = parse_budgets({"latency": written}, STRUCTURE, [cost])
        assert budget.limit == pytest.approx(1.0)
    with pytest.raises(BudgetError, match=r"costs 1\.0000 of the dense network \(10ms\)"):
        parse_budgets({"latency": "9ms"}, STRUCTURE, [cost])
    with pytest.raises(BudgetError, match="with its unit \\(5ms\\)"):
        parse_budgets({"latency": 5}, STRUCTURE, [cost])


@pytest.mark.parametrize(("dense", "limit"), [(0.0, 3.0), (2.0, 1.5)])
@pytest.mark.parametrize("written", [3, "3", "3 layers"])
def test_a_users_own_cost_may_be_counted_in_its_own_unit(
    written: object, dense: float, limit: float
) -> None:
    (budget,) = parse_budgets(
        {"odd.py:odd": written},  # type: ignore[dict-item]
        STRUCTURE,
        [MeasuredCost("odd.py:odd", dense)],
    )
    assert budget.limit == limit


def test_there_is_no_fraction_of_nothing() -> None:
    with pytest.raises(BudgetError, match="which is 0; give an absolute limit"):
        parse_budgets({"odd": 0.5}, STRUCTURE, [MeasuredCost("odd", 0.0)])


def test_budgets_that_contradict_the_smallest_width_say_so() -> None:
    with pytest.raises(BudgetError, match=r"narrower than smallest: 0\.9"):
        parse_budgets({"flops": 0.5}, STRUCTURE, smallest=0.9)


def test_a_pair_is_a_range_whose_ends_are_read_like_single_limits() -> None:
    structure = chain([16, 32])
    (budget,) = parse_budgets({"flops": ["30%", 0.7]}, structure)
    assert (budget.lowest, budget.limit) == (0.3, 0.7)
    assert front_limits([budget]).ravel().tolist() == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    budgets = parse_budgets({"flops": (0.2, 0.6), "params": 0.5}, structure)
    # Ranges move together; single limits stay.
    assert front_limits(budgets)[[0, 2, 4]].tolist() == [
        pytest.approx([0.2, 0.5]),
        pytest.approx([0.4, 0.5]),
        pytest.approx([0.6, 0.5]),
    ]
    single = parse_budgets({"flops": 0.5}, structure)
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
        parse_budgets({"flops": written}, chain([16, 32]))  # type: ignore[dict-item]
