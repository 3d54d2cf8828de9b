"""The agent ``pfp``: one relative error for all layers, solved to the budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from prunetune.envs.judge import Judge
from prunetune.envs.problem import Problem
from prunetune.errors import SpecError
from prunetune.models.costs.cost import Cost, MeasuredCost
from prunetune.search.agents.provable import (
    ProvableAgent,
    guarantee,
    relative_errors,
    sampled_layers,
)

from ..envs.structures import AnalyticEvaluator, chain, problem

_STRUCTURE = chain((16, 32, 24))


def _problem(budgets: dict[str, float], costs: Sequence[Cost] = ()) -> Problem:
    rng = np.random.default_rng(0)
    found = problem(_STRUCTURE, budgets, costs=costs)
    figures = {
        name: {
            "sensitivity": np.sort(rng.uniform(0.01, 0.9, size))[::-1],
            "events": np.array([65.0 * 9]),
            "failure": np.array([1e-16]),
        }
        for name, size in zip(found.space.names, found.space.sizes, strict=True)
    }
    return replace(found, figures=figures)


def _asked(searched: Problem) -> np.ndarray:
    agent = ProvableAgent(Judge(searched, AnalyticEvaluator(_STRUCTURE)), 0, 10)
    return agent.iterate(10).candidates


@pytest.mark.parametrize(
    "budgets", [{"flops": 0.5}, {"params": 0.4}, {"flops": 0.6, "params": 0.3}]
)
def test_no_smaller_common_error_keeps_the_budgets(budgets: dict[str, float]) -> None:
    searched = _problem(budgets)
    (candidate,) = _asked(searched)
    layers = sampled_layers(searched)
    # What the agent was to find, by trying all errors on a fine grid.
    for error in np.geomspace(1e-2, 1e6, 4000):
        kept = np.array([[layer.kept(error) for layer in layers if layer is not None]])
        if searched.tabulated.keep(kept, searched.limits)[0]:
            break
    costs = [cost.fraction(np.array([candidate, kept[0]])) for cost in searched.budgeted]
    limits = searched.limits[0]
    assert all(found <= limit for (found, _), limit in zip(costs, limits, strict=True))
    assert np.all(candidate >= kept[0])
    assert np.abs(candidate - kept[0]).max() <= 1


def test_it_asks_for_one_candidate_and_says_what_it_promises() -> None:
    searched = _problem({"flops": 0.5})
    candidates = _asked(searched)
    assert len(candidates) == 1
    candidate = tuple(candidates[0].tolist())
    errors = relative_errors(searched, candidate)
    assert set(errors) == set(searched.space.names)
    (sentence,) = guarantee(searched, candidate)
    assert f"{max(errors.values()):.3g}" in sentence


def test_candidates_get_smaller_where_a_budget_can_only_be_measured() -> None:
    own = MeasuredCost("own.py:own", 1.0)
    for budgets in ({"own.py:own": 0.5}, {"flops": 0.5, "own.py:own": 0.5}):
        searched = _problem(budgets, costs=(own,))
        agent = ProvableAgent(Judge(searched, AnalyticEvaluator(_STRUCTURE)), 0, 16)
        asked = agent.ask(16)
        assert len(asked) > 5
        assert np.all(np.diff(asked, axis=0) <= 0)
        assert asked[-1].sum() <= searched.space.sizes.sum() / 4
        if "flops" in budgets:
            flops = searched.costs["flops"].fraction(asked)
            assert np.all(flops <= 0.5)


def test_a_criterion_without_sensitivities_is_refused_with_what_to_write() -> None:
    with pytest.raises(SpecError, match="criterion: pfp"):
        ProvableAgent(
            Judge(problem(_STRUCTURE, {"flops": 0.5}), AnalyticEvaluator(_STRUCTURE)), 0, 10
        )
    assert guarantee(problem(_STRUCTURE, {"flops": 0.5}), (1, 1, 1)) == ()
