"""Cost advantages against slow loops over the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import EvaluationError
from prunetune.search.lagrangian.algorithm import episode_costs
from prunetune.search.lagrangian.connectors import (
    combine_advantages,
    cost_value_targets,
    rank_utilities,
    step_costs,
)
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=4),
    st.integers(1, 3),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_targets_are_the_weighted_sum_of_td_errors(
    episodes: list[tuple[int, bool]], count: int, gamma: float, lambda_: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = sum(length + 1 for length, _ in episodes)
    values = rng.normal(size=(rows, count)).astype(np.float32)
    costs = rng.normal(size=(rows, count)).astype(np.float32)
    terminateds, truncateds = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    expected, real, start = values.astype(np.float64), np.ones(rows, dtype=bool), 0
    for length, terminated in episodes:
        last = start + length - 1
        terminateds[last], truncateds[last] = terminated, not terminated
        real[last + 1] = False
        for t in range(start, last + 1):
            for later in range(t, last + 1):
                # A finished episode has no value after its last step; a cut one has.
                after = values[later + 1] * (not (terminated and later == last))
                error = costs[later] + gamma * after - values[later]
                expected[t] += (gamma * lambda_) ** (later - t) * error
        start += length + 1
    targets = cost_value_targets(values, costs, terminateds, truncateds, gamma, lambda_)
    np.testing.assert_allclose(targets[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalise", ["reward", "combined", "ranked"])
def test_bootstrap_rows_do_not_enter_the_advantage(normalise: str) -> None:
    rng = np.random.default_rng(0)
    rewards, costs = rng.normal(size=12), rng.normal(size=(12, 2))
    mask = np.arange(12) % 4 != 3
    multipliers = np.array([2.0, 0.5])
    first = combine_advantages(
        rewards.astype(np.float32), costs.astype(np.float32), mask, multipliers, normalise
    )
    rewards[~mask], costs[~mask] = 1e3, -1e3
    second = combine_advantages(
        rewards.astype(np.float32), costs.astype(np.float32), mask, multipliers, normalise
    )
    assert first[mask].tolist() == second[mask].tolist()
    assert abs(first[mask].mean()) < 1e-6


def test_the_advantage_is_that_of_the_lagrangian() -> None:
    rng = np.random.default_rng(1)
    rewards = rng.normal(3.0, 5.0, 50).astype(np.float32)
    costs = rng.normal(1.0, 2.0, (50, 2)).astype(np.float32)
    mask, multipliers = np.ones(50, dtype=bool), np.array([0.7, 1.3])
    literature = (
        (rewards - rewards.mean()) / rewards.std() - (costs - costs.mean(axis=0)) @ multipliers
    ) / (1 + 2.0)
    np.testing.assert_allclose(
        combine_advantages(rewards, costs, mask, multipliers, "reward"), literature, rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip
    lagrangian = rewards - costs @ multipliers
    standardised = (lagrangian - lagrangian.mean()) / lagrangian.std()
    np.testing.assert_allclose(
        combine_advantages(rewards, costs, mask, multipliers, "combined"), standardised, rtol=1e-3,
        atol=1e-4,
    )  # fmt: skip


def _episode(infos: list[dict[str, object]], finished: bool = True) -> SingleAgentEpisode:
    steps = len(infos) - 1
    return SingleAgentEpisode(
        observations=[0] * (steps + 1),
        actions=[0] * steps,
        rewards=[0.0] * steps,
        infos=infos,
        terminated=finished,
        len_lookback_buffer=0,
    )


def test_the_reset_info_is_no_transition() -> None:
    infos: list[dict[str, object]] = [{"costs": [9.0, 9.0]}, {"costs": [1.0, 2.0]}]
    infos.append({"costs": np.array([3.0, 4.0], dtype=np.float32)})
    episode = _episode(infos)
    assert step_costs(episode, 2, 2).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    unfinished = _episode(infos, finished=False)
    assert episode_costs([episode, unfinished], 2).tolist() == [[4.0, 6.0]]
    assert episode_costs([_episode([{}, {"cost": 0.5}, {"cost": 1}])], 1).tolist() == [[1.5]]


@pytest.mark.parametrize(
    "info", [{}, {"costs": [1.0]}, {"costs": [1.0, float("nan")]}, {"cost": 1.0}]
)
def test_missing_or_meaningless_costs_are_refused(info: dict[str, object]) -> None:
    with pytest.raises(EvaluationError, match="2 finite"):
        step_costs(_episode([{}, info]), 2, 1)


def test_ranked_advantages_depend_on_the_order_of_the_lagrangian_alone() -> None:
    rng = np.random.default_rng(2)
    rewards = rng.normal(0.0, 0.01, 20).astype(np.float32)
    costs = rng.normal(1.0, 0.05, (20, 1)).astype(np.float32)
    mask, multipliers = np.ones(20, dtype=bool), np.array([3.0])
    found = combine_advantages(rewards, costs, mask, multipliers, "ranked", scale=0.01)
    order = np.argsort(rewards / 0.01 - 3.0 * costs[:, 0])
    assert (np.diff(found[order]) >= -1e-6).all()
    assert found.std() == pytest.approx(1.0, rel=1e-4)
    # A broken candidate may be as broken as it likes.
    worst = order[0]
    rewards[worst] = -1e6
    again = combine_advantages(rewards, costs, mask, multipliers, "ranked", scale=0.01)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_rank_utilities_are_those_of_cma_es() -> None:
    # ln(n / 2 + 1) - ln k for the better half, nothing for the rest; then standardised.
    raw = np.array([np.log(3) - np.log(k) for k in (1, 2)] + [0.0, 0.0])
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(rank_utilities(np.array([9.0, 4.0, -1.0, -8.0])), expected)
    np.testing.assert_array_equal(rank_utilities(np.full(5, 2.0)), np.zeros(5))
    tied = rank_utilities(np.array([1.0, 7.0, 7.0, 0.0]))
    assert tied[1] == tied[2] > tied[0]
