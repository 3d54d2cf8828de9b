"""Whole candidates from one action: scaling to the budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prunetune.envs.problem import Problem
from prunetune.models.costs.cost import MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure
from prunetune.search.agents.scaling import rescale
from prunetune.search.agents.together.candidate_map import CandidateMap

from ....envs.structures import chain, problem, space, structures


def _limits(problem: Problem, count: int) -> np.ndarray:
    return np.repeat([[budget.limit for budget in problem.budgets]], count, axis=0)


@settings(max_examples=40, deadline=None)
@given(structures(), st.floats(0.5, 0.95), st.integers(0, 2**31))
def test_scaled_candidates_meet_the_limits_and_could_not_be_scaled_further(
    structure: Structure, limit: float, seed: int
) -> None:
    narrowest = space(structure).smallest[None]
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
    widths = mapping.candidates(actions, limits)
    spent = np.stack([cost.fraction(widths) for cost in asked.budgeted], axis=1) / limits
    expected = 0.99 + 0.05 * np.clip(actions[:, 3], -1, 1)
    np.testing.assert_allclose(spent.max(axis=1), expected, atol=2e-3)
    # Proportions do not depend on what is spent.
    actions[:, :3] = actions[0, :3]
    shares = mapping.candidates(actions, limits) / asked.space.sizes
    ratios = shares / shares[:, :1]
    np.testing.assert_allclose(ratios, np.repeat(ratios[:1], 6, axis=0), rtol=5e-3)


def test_action_zero_is_the_uniform_candidate_at_any_limit() -> None:
    asked = problem(chain([64, 32, 64]), {"flops": 0.5})
    mapping = CandidateMap(asked, scale=False)
    limits = np.array([[0.5], [0.3], [1.0]])
    widths = mapping.candidates(np.zeros((3, 3)), limits)
    assert widths[0].tolist() == asked.action_map.uniform.tolist()
    assert widths[2].tolist() == [64, 32, 64]
    assert (asked.budgeted[0].fraction(widths) <= limits[:, 0]).all()
    ends = mapping.candidates(np.array([[-1.0] * 3, [1.0] * 3, [9.0] * 3]), limits)
    assert ends.tolist() == [[1, 1, 1], [64, 32, 64], [64, 32, 64]]


def test_a_cost_that_only_evaluations_reveal_is_not_scaled_to() -> None:
    asked = problem(chain([16, 32]), {"flops": 0.5, "odd": 0.4}, costs=(MeasuredCost("odd"),))
    alone = problem(chain([16, 32]), {"odd": 0.4}, costs=(MeasuredCost("odd"),))
    assert CandidateMap(alone).size == 2
    # Beside a tabulated cost, that one alone is scaled to.
    assert CandidateMap(asked).size == 3
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (6, 3))
    both = CandidateMap(asked).candidates(actions, _limits(asked, 6))
    flops = problem(chain([16, 32]), {"flops": 0.5})
    np.testing.assert_array_equal(both, CandidateMap(flops).candidates(actions, _limits(flops, 6)))


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
    expected = CandidateMap(free).candidates(actions, _limits(free, 6))
    np.testing.assert_array_equal(
        CandidateMap(bound).candidates(actions, _limits(bound, 6)), expected
    )
    assert (expected > 1).any()


@pytest.mark.parametrize("scaled", [True, False])
def test_every_action_gives_widths_that_exist(scaled: bool) -> None:
    asked = problem(chain([1, 7, 40]), {"flops": 0.3}, smallest=0.2)
    mapping = CandidateMap(asked, scaled)
    actions = np.random.default_rng(1).normal(0, 1, (200, mapping.size))
    widths = mapping.candidates(actions, _limits(asked, 200))
    assert (widths >= asked.space.smallest).all()
    assert (widths <= asked.space.sizes).all()
