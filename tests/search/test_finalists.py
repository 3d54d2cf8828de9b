"""Which candidates of a trial reach the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prunetune.envs.budgets import Budget
from prunetune.rewards import NamedSpec
from prunetune.search.engine.deliveries import deliveries
from prunetune.search.run.history import Asked, pick_finalists
from prunetune.search.spec.trials import TrialSpec

CANDIDATES = st.builds(
    Asked,
    candidate=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    reward=st.floats(-1, 1),
    costs=st.just({"flops": 0.5}),
    feasible=st.booleans(),
    evaluations_before=st.integers(0, 100),
)


@given(st.lists(CANDIDATES, max_size=30), st.integers(1, 5))
def test_finalists_are_the_best_different_feasible_ones(history: list[Asked], count: int) -> None:
    chosen = pick_finalists(history, count)
    feasible = {candidate.candidate for candidate in history if candidate.feasible}
    assert all(candidate.feasible for candidate in chosen)
    assert len({candidate.candidate for candidate in chosen}) == len(chosen)
    assert len(chosen) == min(count, len(feasible))
    rewards = [candidate.reward for candidate in chosen]
    assert rewards == sorted(rewards, reverse=True)


def test_of_equal_rewards_the_first_one_asked_for_wins() -> None:
    history = [
        Asked((2,), 0.5, {"flops": 0.5}, True, 0),
        Asked((1,), 0.5, {"flops": 0.4}, True, 1),
        Asked((3,), 0.9, {"flops": 0.6}, False, 2),
        Asked((2,), 0.5, {"flops": 0.5}, True, 3),
    ]
    assert [c.evaluations_before for c in pick_finalists(history, 3)] == [0, 1]


def test_a_range_delivers_the_best_of_the_whole_search_for_every_limit() -> None:
    trial = TrialSpec(
        name="loss",
        reward=NamedSpec(name="loss"),
        budgets={"flops": ("20%", 0.6), "params": "1M"},
        agent=NamedSpec(name="random"),
        seed=0,
    )
    wanted = deliveries(trial, [Budget("flops", 0.6, lowest=0.2), Budget("params", 0.4)])
    assert [each.name for each in wanted] == [f"loss_{number}of5" for number in range(1, 6)]
    assert wanted[1].budget == {"flops": 0.3, "params": "1M"}
    assert wanted[1].limits == {"flops": pytest.approx(0.3), "params": 0.4}
    history = [
        # Asked for at the highest limit and good enough for a lower one.
        Asked((2,), 0.5, {"flops": 0.28, "params": 0.4}, True, 0),
        # Over the limit that it was asked for, within a higher one.
        Asked((3,), 0.7, {"flops": 0.45, "params": 0.3}, False, 1),
        Asked((4,), 0.9, {"flops": 0.30, "params": 0.5}, False, 2),
        Asked((5,), float("nan"), {"flops": 0.1, "params": 0.1}, False, 3),
    ]
    best = [[each.candidate for each in delivery.finalists(history, 1)] for delivery in wanted]
    assert best == [[], [(2,)], [(2,)], [(3,)], [(3,)]]


def test_single_limits_deliver_one_network_under_the_name_of_the_search() -> None:
    trial = TrialSpec(
        name="loss",
        reward=NamedSpec(name="loss"),
        budgets={"flops": "60M"},
        agent=NamedSpec(name="random"),
        seed=0,
    )
    (only,) = deliveries(trial, [Budget("flops", 0.5)])
    assert only.name == "loss" and not only.is_one_of_several
    assert only.budget == {"flops": "60M"} and only.limits == {"flops": 0.5}
