"""Whole candidates from one action: scaling to the budgets, and the environment of one step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prunetune.envs.budgets import Budget, minimum_widths
from prunetune.envs.problem import PruningProblem
from prunetune.models.costs.cost import MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure
from prunetune.search.agents.together.candidate_map import CandidateMap, rescale
from prunetune.search.agents.together.environment import OneStepVectorEnv

from .structures import chain, problem, structures


def _limits(problem: PruningProblem, count: int) -> np.ndarray:
    return np.repeat([[budget.limit for budget in problem.budgets]], count, axis=0)


@settings(max_examples=40, deadline=None)
@given(structures(), st.floats(0.5, 0.95), st.integers(0, 2**31))
def test_scaled_candidates_meet_the_limits_and_could_not_be_scaled_further(
    structure: Structure, limit: float, seed: int
) -> None:
    narrowest = minimum_widths(structure)[None]
    costs = counted_costs(structure)
    assume(all(cost.fraction(narrowest)[0] < limit for cost in costs.values()))
    fractions = np.random.default_rng(seed).uniform(0.05, 1, (8, len(structure.groups)))
    widths = rescale(problem(structure, {"flops": limit, "params": limit}), fractions)
    spent = np.stack([cost.fraction(widths) for cost in costs.values()], axis=1)
    assert (spent <= limit).all()
    # Somewhat larger factors exceed a limit: nothing was left on the table.
    for row, fraction in zip(widths, fractions, strict=True):
        if (row == structure.sizes).all():
            continue
        factor = max((row + 0.51) / (fraction * structure.sizes))
        wider = np.clip(np.rint(factor * fraction * structure.sizes), row, structure.sizes)
        wider = np.minimum(wider, structure.sizes).astype(np.int64)[None]
        more = [cost.fraction(wider)[0] for cost in costs.values()]
        assert max(more) > limit or (wider[0] == row).all()


def test_the_spending_decides_the_cost_and_proportions_only_their_ratios() -> None:
    # Groups so wide that rounding to units hardly moves the cost.
    asked = problem(chain([4000, 3000, 5000]), {"flops": 0.4, "params": 0.5})
    mapping = CandidateMap(asked)
    assert mapping.size == 4
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.5, 0.5, (6, 4))
    actions[:, 3] = [-1.0, 0.0, 1.0, -5.0, 0.4, 1.0]
    limits = _limits(asked, 6)
    widths = mapping.widths(actions, limits)
    spent = np.stack([cost.fraction(widths) for cost in asked.limited], axis=1) / limits
    expected = 0.99 + 0.05 * np.clip(actions[:, 3], -1, 1)
    np.testing.assert_allclose(spent.max(axis=1), expected, atol=2e-3)
    # Proportions do not depend on what is spent.
    actions[:, :3] = actions[0, :3]
    shares = mapping.widths(actions, limits) / asked.structure.sizes
    ratios = shares / shares[:, :1]
    np.testing.assert_allclose(ratios, np.repeat(ratios[:1], 6, axis=0), rtol=5e-3)


def test_action_zero_is_the_uniform_candidate_at_any_limit() -> None:
    asked = problem(chain([64, 32, 64]), {"flops": 0.5})
    mapping = CandidateMap(asked, scaled=False)
    limits = np.array([[0.5], [0.3], [1.0]])
    widths = mapping.widths(np.zeros((3, 3)), limits)
    assert widths[0].tolist() == asked.width_map.uniform.tolist()
    assert widths[2].tolist() == [64, 32, 64]
    assert (asked.limited[0].fraction(widths) <= limits[:, 0]).all()
    ends = mapping.widths(np.array([[-1.0] * 3, [1.0] * 3, [9.0] * 3]), limits)
    assert ends.tolist() == [[1, 1, 1], [64, 32, 64], [64, 32, 64]]


def test_a_cost_that_only_evaluations_reveal_is_not_scaled_to() -> None:
    asked = problem(chain([16, 32]), {"flops": 0.5, "odd": 0.4}, costs=(MeasuredCost("odd"),))
    alone = problem(chain([16, 32]), {"odd": 0.4}, costs=(MeasuredCost("odd"),))
    assert CandidateMap(alone).size == 2
    # Beside a tabulated cost, that one alone is scaled to.
    assert CandidateMap(asked).size == 3
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (6, 3))
    both = CandidateMap(asked).widths(actions, _limits(asked, 6))
    flops = problem(chain([16, 32]), {"flops": 0.5})
    np.testing.assert_array_equal(both, CandidateMap(flops).widths(actions, _limits(flops, 6)))


def test_a_cost_that_hardly_depends_on_widths_does_not_narrow_everything() -> None:
    free = problem(chain([16, 32, 8]), {"flops": 0.5})

    class Constant(MeasuredCost):
        """The same for all candidates, as a peak that a whole residual stream sets."""

        tabulated = True

        def fraction(self, widths: np.ndarray) -> np.ndarray:
            return np.ones(len(widths))

    budgets = {"flops": 0.5, "peak": 1.0}
    bound = problem(chain([16, 32, 8]), budgets, costs=(Constant("peak"),))
    actions = np.random.default_rng(3).uniform(-0.4, 0.4, (6, 4))
    expected = CandidateMap(free).widths(actions, _limits(free, 6))
    np.testing.assert_array_equal(CandidateMap(bound).widths(actions, _limits(bound, 6)), expected)
    assert (expected > 1).any()


def test_one_step_decides_and_judges_whole_candidates() -> None:
    asked = problem(chain([16, 32, 8]), {"flops": 0.5, "params": 0.6})
    env = OneStepVectorEnv(asked, 5)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, _ = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    np.testing.assert_allclose(observations, np.repeat([[0.5, 0.6]], 5, axis=0))
    env.action_space.seed(0)
    _, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
    assert terminated.all() and not truncated.any()
    again = asked.judge(infos["widths"])
    np.testing.assert_allclose(rewards, again.rewards)
    np.testing.assert_allclose(infos["costs"], again.costs / [0.5, 0.6], rtol=1e-6)
    assert infos["feasible"].tolist() == (infos["costs"] <= 1).all(axis=1).tolist()
    np.testing.assert_allclose(infos["evaluation"]["accuracy"], again.rewards)
    # All candidates of a step are evaluated in one call, and the next step only begins anew.
    _, rewards, terminated, _, infos = env.step(env.action_space.sample())
    assert not terminated.any() and not rewards.any() and not infos


@pytest.mark.parametrize("scaled", [True, False])
def test_every_action_gives_widths_that_exist(scaled: bool) -> None:
    asked = problem(chain([1, 7, 40]), {"flops": 0.3}, smallest=0.2)
    mapping = CandidateMap(asked, scaled)
    actions = np.random.default_rng(1).normal(0, 1, (200, mapping.size))
    widths = mapping.widths(actions, _limits(asked, 200))
    assert (widths >= minimum_widths(asked.structure, 0.2)).all()
    assert (widths <= asked.structure.sizes).all()


def test_candidates_of_one_step_are_spread_over_the_limits_of_a_range() -> None:
    asked = problem(chain([64, 32, 64]), {"flops": 0.6})
    ranged = dataclasses.replace(asked, budgets=(Budget("flops", 0.6, lowest=0.2),))
    env = OneStepVectorEnv(ranged, 10)
    observations, _ = env.reset(seed=0)
    limits = np.tile([0.2, 0.3, 0.4, 0.5, 0.6], 2)
    np.testing.assert_allclose(observations[:, 0], limits, rtol=1e-6)
    # Action 0 is, for each of them, the uniform candidate one per cent below its limit.
    _, _, _, _, infos = env.step(np.zeros((10, 4), dtype=np.float32))
    assert infos["context"].tolist() == [0, 1, 2, 3, 4] * 2
    assert infos["feasible"].all()
    np.testing.assert_allclose(infos["costs"][:, 0], 0.99, atol=0.04)
    # The narrowest limit is exceeded by what keeps the widest.
    outcome = ranged.judge(np.repeat(infos["widths"][4:5], 2, axis=0), np.array([[0.2], [0.6]]))
    assert outcome.feasible.tolist() == [False, True]
