"""Sensitivities: read off single groups, and allocated to budgets."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prunetune.envs.judge import Judge
from prunetune.models import Candidate
from prunetune.models.costs.cost import MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.agents.together.allocation import Sensitivity, narrowings
from prunetune.search.agents.together.candidate_map import CandidateMap

from ....envs.structures import AnalyticEvaluator, chain, judge, problem, space, structures


def _fitted(asked: Judge, steps: int) -> Sensitivity:
    widths = narrowings(asked.problem, steps)
    outcome = asked.ask(widths)
    return Sensitivity.fit(asked.problem, widths, outcome.rewards, outcome.costs)


def test_one_group_is_narrowed_at_a_time() -> None:
    widths = narrowings(problem(chain([8, 3, 1]), {"flops": 0.5}), 3)
    assert widths.tolist() == [
        [8, 3, 1],
        *([width, 3, 1] for width in (6, 4, 2)),
        # 3 x 3/4, 3 x 1/2 and 3 x 1/4 are rounded, half to even, to 2, 2 and 1 units.
        [8, 2, 1],
        [8, 1, 1],
    ]
    kept = narrowings(problem(chain([8]), {"flops": 0.9}, smallest=0.6), 3)
    assert kept.tolist() == [[8], [6], [5]]


def test_losses_are_those_of_the_candidates_and_linear_between_them() -> None:
    asked = judge(chain([16, 8]), {"flops": 0.5})
    fitted = _fitted(asked, 3)
    # Two groups of weights 1 and 1/2: narrowing one to the share s loses w (1 - s)^2 / 1.5.
    expected = {16: 0.0, 12: 0.25**2 / 1.5, 8: 0.5**2 / 1.5, 4: 0.75**2 / 1.5}
    for width, loss in expected.items():
        assert fitted.losses[0, width] == pytest.approx(loss)
    assert fitted.losses[0, 10] == pytest.approx((expected[8] + expected[12]) / 2)
    # Below the narrowest candidate the loss grows twice as fast.
    slope = (expected[4] - expected[8]) / 4
    assert fitted.losses[0, 2] == pytest.approx(expected[4] + 2 * 2 * slope)
    assert np.isinf(fitted.losses[:, 0]).all()
    assert (fitted.losses[1, 9:] == 0).all()


def test_noise_does_not_make_a_loss_fall_and_rise() -> None:
    asked = problem(chain([40]), {"flops": 0.5})
    widths = narrowings(asked, 4)
    losses = Sensitivity.fit(asked, widths, np.array([1.0, 0.8, 0.95, 0.7, 0.2])).losses[0]
    assert (np.diff(losses[1:], n=2) >= -1e-12).all()
    # 0.2 at 32 units lies above the line between its neighbours.
    assert losses[[16, 24, 32]] == pytest.approx([0.3, 0.05, 0.025])


def test_what_is_allocated_loses_hardly_more_than_the_best_candidate_there_is() -> None:
    # The analytic accuracy is a sum over groups, so that exhaustive search is the oracle.
    asked = judge(chain([12, 16, 10]), {"flops": 0.4})
    every = np.array(list(itertools.product(range(1, 13), range(1, 17), range(1, 11))))
    outcome = asked.ask(every)
    best = outcome.rewards[outcome.feasible].max()
    allocated = _fitted(asked, 8).allocate(asked.problem, np.array([[0.4]]))
    reward = asked.ask(allocated)
    uniform = asked.ask(asked.problem.action_map.uniform[None]).rewards[0]
    assert reward.feasible.all()
    assert best - reward.rewards[0] < 0.15 * (best - uniform)


SIZES = np.array([12, 16, 10])


class _WithCost(AnalyticEvaluator):
    """The analytic evaluator, whose evaluations also report a sum of shares of the groups."""

    def __init__(self, structure: Structure, slopes: Sequence[float]) -> None:
        super().__init__(structure)
        self.slopes = slopes

    def one(self, widths: Candidate) -> Evaluation:
        """Accuracy as ever, and the cost."""
        own = float(np.dot(self.slopes, np.array(widths) / SIZES))
        return dataclasses.replace(super().one(widths), costs={"own": own})


def _measured(limit: float, slopes: Sequence[float], smallest: float = 0.0) -> Judge:
    """A judge whose only budget is on a measured cost, a sum of shares of the groups."""
    structure = chain(SIZES.tolist())
    costs = (MeasuredCost("own"),)
    asked = problem(structure, {"own": limit}, costs=costs, smallest=smallest)
    return Judge(asked, _WithCost(structure, slopes))


def test_costs_that_only_an_evaluation_reveals_are_allocated_by_what_groups_add_to_them() -> None:
    asked = _measured(0.45, [0.5, 0.2, 0.3])
    every = np.array(list(itertools.product(*(range(1, size + 1) for size in SIZES))))
    outcome = asked.ask(every)
    best = outcome.rewards[outcome.feasible].max()
    uniform = asked.ask(np.array([[5, 7, 4]]))
    allocated = asked.ask(_fitted(asked, 8).allocate(asked.problem, np.array([[0.45]])))
    assert allocated.feasible.all() and uniform.feasible.all()
    assert allocated.costs[0, 0] > 0.9 * 0.45
    # Units are whole, and these groups have few of them.
    assert best - allocated.rewards[0] < 0.3 * (best - uniform.rewards[0])


def test_only_groups_that_a_measured_cost_turns_on_give_way_to_it() -> None:
    asked = _measured(0.1, [0.0, 0.5, 0.0])
    assert _fitted(asked, 4).allocate(asked.problem, asked.problem.limits).tolist() == [[12, 3, 10]]


def test_a_limit_that_narrowing_does_not_lead_to_leaves_all_units() -> None:
    asked = _measured(0.45, [-0.5, 1.8, -0.3], smallest=0.9)
    allocated = _fitted(asked, 4).allocate(asked.problem, asked.problem.limits)
    assert allocated.tolist() == [SIZES.tolist()]


@settings(max_examples=30, deadline=None)
@given(structures(), st.floats(0.3, 0.9), st.floats(0.5, 0.95))
def test_allocations_keep_all_tabulated_budgets_and_leave_little_unused(
    structure: Structure, flops: float, params: float
) -> None:
    limits = {"flops": flops, "params": params}
    narrowest = space(structure).smallest[None]
    costs = counted_costs(structure)
    assume(all(costs[name].fraction(narrowest)[0] < limit for name, limit in limits.items()))
    asked = judge(structure, limits)
    allocated = _fitted(asked, 2).allocate(asked.problem, np.array([[flops, params], [1.0, 1.0]]))
    assert asked.problem.tabulated.keep(allocated[:1]).all()
    assert allocated[1].tolist() == structure.sizes.tolist()
    # Some group had to give way: giving it one unit back breaks a budget.
    if (allocated[0] < structure.sizes).any():
        wider = allocated[:1] + np.eye(len(structure.groups), dtype=np.int64)
        possible = (wider <= structure.sizes).all(axis=1)
        assert not asked.problem.tabulated.keep(wider[possible]).all()


def test_a_candidate_map_starts_where_the_sensitivities_say() -> None:
    judged = judge(chain([400, 300, 500]), {"flops": 0.4})
    asked, fitted = judged.problem, _fitted(judged, 4)
    mapping = CandidateMap(asked, sensitivity=fitted)
    limits = np.array([[0.4], [0.2], [0.4]])
    started = mapping.candidates(np.zeros((3, 4)), limits)
    allocated = fitted.allocate(asked, limits)
    np.testing.assert_allclose(started, allocated, rtol=0.02)
    spent = asked.budgeted[0].fraction(started) / limits[:, 0]
    np.testing.assert_allclose(spent, 0.99, atol=0.005)
    assert mapping.candidates(np.array([[-1.0, 1.0, 0.0, 0.0]]), limits[:1])[0, 0] < 5
