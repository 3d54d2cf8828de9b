"""Both update rules against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.search.lagrangian.multipliers import (
    Constraints,
    Multipliers,
    PidGains,
    held_costs,
)

COSTS = st.lists(st.lists(st.floats(0, 2), min_size=2, max_size=2), min_size=1, max_size=12)
LIMITS = (0.5, 1.0)


def _constraints(**options: object) -> Constraints:
    return Constraints(LIMITS, ("a", "b"), **options)  # type: ignore[arg-type]


def test_the_undamped_gradient_adds_up_violations() -> None:
    multipliers = Multipliers(_constraints(learning_rate=2.0, damping=0.0))
    costs = np.array([[0.7, 1.5], [0.9, 1.25], [0.6, 1.125]])
    for cost in costs:
        values = multipliers.update(cost)
    np.testing.assert_allclose(values, 2.0 * (costs - LIMITS).sum(axis=0))


@settings(max_examples=60, deadline=None)
@given(COSTS, st.floats(0, 5), st.floats(0, 5))
def test_damping_adds_the_violation_to_the_sum_of_violations(
    costs: list[list[float]], rate: float, damping: float
) -> None:
    multipliers = Multipliers(_constraints(learning_rate=rate, damping=damping, maximum=50.0))
    total = np.zeros(2)
    for row in costs:
        violation = np.array(row) - LIMITS
        total = np.clip(total + rate * violation, 0, 50.0)
        expected = np.clip(total + rate * damping * violation, 0, 50.0)
        np.testing.assert_allclose(multipliers.update(row), expected, rtol=1e-12, atol=1e-12)


def test_costs_that_stay_below_their_limits_have_no_price_however_they_move() -> None:
    multipliers = Multipliers(_constraints(learning_rate=1.0, damping=5.0))
    for cost in ([0.1, 0.9], [0.49, 0.2], [0.3, 0.99]):
        assert multipliers.update(cost).tolist() == [0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(COSTS, st.floats(0, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 0.9))
def test_pid_is_stookes_algorithm_2(
    costs: list[list[float]], kp: float, ki: float, kd: float, keep: float
) -> None:
    gains = PidGains(kp, ki, kd, keep, delay=2)
    multipliers = Multipliers(_constraints(rule="pid", pid=gains, maximum=50.0))
    integral, proportional = np.zeros(2), np.zeros(2)
    history: list[np.ndarray] = []
    for row in costs:
        cost = np.array(row)
        violation = cost - LIMITS
        integral = np.clip(integral + ki * violation, 0, 50.0)
        proportional = keep * proportional + (1 - keep) * violation
        history.append(keep * (history[-1] if history else cost) + (1 - keep) * cost)
        rise = np.maximum(0, history[-1] - history[max(0, len(history) - 3)])
        expected = np.clip(kp * proportional + integral + kd * rise, 0, 50.0)
        np.testing.assert_allclose(multipliers.update(cost), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(COSTS, st.sampled_from(["lagrange", "pid"]), st.integers(1, 3), st.data())
def test_a_restored_state_continues_exactly_and_stays_in_bounds(
    costs: list[list[float]], rule: str, window: int, data: st.DataObject
) -> None:
    constraints = _constraints(rule=rule, window=window, maximum=3.0)
    multipliers = Multipliers(constraints)
    stop = data.draw(st.integers(0, len(costs)))
    for cost in costs[:stop]:
        multipliers.update(cost)
    restored = Multipliers(constraints)
    restored.set_state(multipliers.get_state())
    for cost in costs[stop:]:
        values = multipliers.update(cost)
        assert (values >= 0).all() and (values <= 3.0).all()
        assert values.tolist() == restored.update(cost).tolist()


def test_the_window_averages_costs() -> None:
    multipliers = Multipliers(_constraints(damping=0.0, window=2))
    multipliers.update([0.6, 1.2])
    values = multipliers.update([0.8, 1.0])
    np.testing.assert_allclose(values, [0.1 + 0.2, 0.2 + 0.1])


@pytest.mark.parametrize("rule", ["lagrange", "pid"])
def test_an_unknown_cost_moves_nothing(rule: str) -> None:
    multipliers = Multipliers(_constraints(rule=rule))
    multipliers.update([0.9, 1.4])
    before = multipliers.get_state()
    multipliers.update([np.nan, 0.1])
    after = multipliers.get_state()
    assert before["values"].tolist() == after["values"].tolist()
    assert before["integral"].tolist() == after["integral"].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"limits": ()},
        {"limits": (np.nan, 1.0)},
        {"names": ("a", "a")},
        {"names": ("a",)},
        {"rule": "adam"},
        {"learning_rate": -1.0},
        {"initial": (1.0,)},
        {"initial": (1.0, 200.0)},
        {"window": 0},
        {"pid": PidGains(smoothing=1.0)},
    ],
)
def test_constraints_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    given = {"limits": LIMITS, "names": ("a", "b"), **options}
    with pytest.raises(ValueError):
        Constraints(**given)  # type: ignore[arg-type]


def test_most_episodes_are_held_at_the_limit_unless_they_are_cut_off_there() -> None:
    limits = np.array([1.0, 1.0, 1.0, 1.0])
    cut_off = [0.6, 0.6, 1.0, 1.0]
    costs = np.array([cut_off, [0.6, 0.6, 1.0, 1.1], [0.2, 0.2, 0.3, 0.3], [2.0, 2.0, 2.0, 2.0]]).T
    means, spreads = costs.mean(axis=0), costs.std(axis=0)
    expected = means + 1.6 * spreads
    expected[0] = means[0]
    np.testing.assert_allclose(held_costs(costs, limits, 1.6), expected)
    np.testing.assert_allclose(held_costs(costs, limits, 0.0), means)
    assert np.isnan(held_costs(costs[:0], limits, 1.6)).all()
