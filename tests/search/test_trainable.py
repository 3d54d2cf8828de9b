"""A trial as Tune runs it, restored after any iteration; and the agent behind the shield."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.envs.budgets import Budget
from prunetune.envs.judge import Judge
from prunetune.errors import SpecError
from prunetune.models.costs.cost import MeasuredCost
from prunetune.rewards import NamedSpec
from prunetune.search.agents import Agent, make_agent
from prunetune.search.engine import trial as trial_module
from prunetune.search.engine.trial import SearchTrial, TrialPlan
from prunetune.search.run.checkpoints import TrialState
from prunetune.search.run.history import Asked, TrialHistory

from ..envs import structures

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray", "evaluated_here")]


STRUCTURE = structures.chain([16, 32, 32, 64])
BUDGETS = {"flops": 0.5, "odd": 0.5}


class _Here:
    """Evaluates by a formula in this process, as a pool would in others."""

    def __init__(self, name: str) -> None:
        self.evaluate = structures.AnalyticEvaluator(STRUCTURE).evaluate


@pytest.fixture
def evaluated_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "PoolClient", _Here)


@pytest.fixture
def trials() -> Iterator[Any]:
    """Builds trials, each with folders of its own, and ends them."""
    begun: list[SearchTrial] = []

    def begin(folder: Path, agent: NamedSpec) -> SearchTrial:
        plan = TrialPlan(
            histories=folder / "histories",
            experiment=folder / "tune",
            rungs=folder / "rungs",
            pool="here",
            evaluations=64,
        )
        problem = structures.problem(STRUCTURE, BUDGETS, costs=(MeasuredCost("odd", 0.0),))
        trial = {
            "name": "trial",
            "reward": "accuracy",
            "budgets": BUDGETS,
            "agent": agent.model_dump(),
            "seed": 5,
        }
        made = SearchTrial.__new__(SearchTrial)
        made.setup({"trial": trial}, plan, {"trial": problem})
        begun.append(made)
        return made

    yield begin
    for trial in begun:
        trial.cleanup()


def _state(trial: SearchTrial) -> list[dict[str, Any]]:
    def look(learner: Any) -> dict[str, Any]:
        ((_, optimizer),) = learner.get_optimizers_for_module("default_policy")
        return {
            "multipliers": learner.multipliers.values.tolist(),
            "learning rate": float(optimizer.param_groups[0]["lr"]),
            "KL coefficient": float(learner.curr_kl_coeffs_per_module["default_policy"]),
            "weights": {
                name: value.tolist()
                for name, value in learner.module["default_policy"].unwrapped().state_dict().items()
            },
        }

    agent: Any = trial._agent
    return [found.get() for found in agent._algorithm.learner_group.foreach_learner(look)]


@pytest.mark.parametrize("name", ["ppo-lagrangian", "ppo-lagrangian-in-order"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_restored_trial_goes_on_as_if_nothing_had_happened(
    trials: Any, tmp_path: Path, name: str, after: int
) -> None:
    agent = NamedSpec(name=name, parameters={"candidates": 8})
    whole = trials(tmp_path / "whole", agent)
    for _ in range(after):
        whole.step()
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    whole.save_checkpoint(str(checkpoint))
    saved = _state(whole)
    expected = whole.step()
    # The run's folder as it was left, with an iteration that came after the checkpoint.
    shutil.copytree(tmp_path / "whole" / "histories", tmp_path / "restored" / "histories")
    restored = trials(tmp_path / "restored", agent)
    restored.load_checkpoint(str(checkpoint))
    assert _state(restored) == saved
    found = restored.step()
    # All figures, multipliers among them, and what follows from the candidates.
    assert found == expected
    assert _state(restored) == _state(whole) != saved
    histories = [
        TrialHistory(tmp_path / each / "histories" / "trial") for each in ("whole", "restored")
    ]
    first, second = (history.load() for history in histories)
    # The sampled actions, as widths.
    assert [each.candidate for each in first] == [each.candidate for each in second]
    assert len({each.candidate for each in second[-8:]}) > 1


def _judge(budgets: dict[str, float], **options: Any) -> Judge:
    judge: Judge = structures.judge(STRUCTURE, budgets, **options)
    return judge


def test_a_trial_takes_up_its_past_where_its_history_ends(trials: Any, tmp_path: Path) -> None:
    candidates = [(8, 16, 16, 32), (7, 16, 16, 32)]
    asked = [
        Asked(candidates[0], 0.9, {"flops": 0.4, "odd": 0.25}, True, 0),
        Asked(candidates[1], math.nan, {"flops": 0.3, "odd": 0.5}, False, 1),
    ]
    TrialHistory(tmp_path / "histories" / "trial").write(0, asked)
    trial = trials(tmp_path, NamedSpec(name="random"))
    trial._state = TrialState(iterations=1, asked=2)
    trial._remember()
    past = trial._judge.past
    assert past.candidates.tolist() == [list(each) for each in candidates]
    np.testing.assert_array_equal(past.costs("flops"), [0.4, np.nan])
    np.testing.assert_array_equal(past.costs("odd"), [0.25, np.nan])
    assert past.best == 0.9


def test_the_default_agent_judges_once_what_it_asks_for() -> None:
    judge = _judge({"flops": 0.5})
    agent = make_agent(NamedSpec(name="ppo-lagrangian"), judge, 0, 100)
    asked: list[list[int]] = []
    try:
        while (iteration := agent.iterate(100 - len(asked))).outcome is not None:
            asked += iteration.candidates.tolist()
    finally:
        agent.stop()
    assert len(asked) == 100
    # What it asked for is its past, in order, each once, and the policy got better by it.
    assert judge.past.candidates.tolist() == asked
    feasible = judge.past.rewards[judge.problem.tabulated.keep(judge.past.candidates)]
    assert feasible.max() > judge.past.rewards[:20].mean()


_LONG = pytest.param(600, marks=pytest.mark.slow)


def _asked(agent: Agent, evaluations: int) -> list[int]:
    """How many candidates each iteration asked for, until there were no more."""
    counts: list[int] = []
    try:
        while (iteration := agent.iterate(evaluations - sum(counts))).outcome is not None:
            counts.append(len(iteration.candidates))
    finally:
        agent.stop()
    return counts


@pytest.mark.parametrize("evaluations", [96, pytest.param(160, marks=pytest.mark.slow), _LONG])
@pytest.mark.parametrize(
    "name", ["ppo-lagrangian", "ppo-lagrangian-in-order", "amc", "random", "tpe", "cma-es"]
)
def test_as_many_candidates_are_asked_for_as_was_said(name: str, evaluations: int) -> None:
    judge = _judge({"flops": 0.5})
    agent = make_agent(NamedSpec(name=name, parameters={"candidates": 13}), judge, 0, evaluations)
    counts = _asked(agent, evaluations)
    assert sum(counts) == evaluations == len(judge.past.candidates)


@pytest.mark.parametrize("parameters", [{}, {"imagined": 0, "candidates": 7}])
def test_the_rest_is_shared_by_the_limits_of_a_range(parameters: dict[str, Any]) -> None:
    plain = _judge({"flops": 0.6}).problem
    ranged = dataclasses.replace(plain, budgets=(Budget("flops", 0.6, lowest=0.2),))
    judge = Judge(ranged, structures.AnalyticEvaluator(STRUCTURE))
    spec = NamedSpec(name="ppo-lagrangian", parameters={"start": "uniform", **parameters})
    assert sum(_asked(make_agent(spec, judge, 0, 50), 50)) == 50


@pytest.mark.parametrize("name", ["ppo-lagrangian", "ppo-lagrangian-in-order"])
def test_a_search_that_is_restored_before_the_rest_asks_for_the_same(
    name: str, tmp_path: Path
) -> None:
    spec = NamedSpec(name=name, parameters={"candidates": 10})
    judge = _judge({"flops": 0.5})
    agent = make_agent(spec, judge, 0, 37)
    left = 37
    while left >= 10:
        left -= len(agent.iterate(left).candidates)
    agent.save(tmp_path)
    restored = make_agent(spec, judge, 0, 37)
    restored.load(tmp_path)
    # What the rest is chosen by is the past, which the first of them would add to.
    past = copy.deepcopy(judge.past)
    expected = agent.iterate(left).candidates
    judge.past = past
    np.testing.assert_array_equal(restored.iterate(left).candidates, expected)
    assert 0 < len(expected) == left < 10
    agent.stop()
    restored.stop()


def test_the_limits_of_a_range_take_turns_in_the_default_agent() -> None:
    plain = _judge({"flops": 0.6}).problem
    ranged = dataclasses.replace(plain, budgets=(Budget("flops", 0.6, lowest=0.2),))
    judge = Judge(ranged, structures.AnalyticEvaluator(STRUCTURE))
    spec = NamedSpec(name="ppo-lagrangian", parameters={"candidates": 10, "start": "uniform"})
    agent = make_agent(spec, judge, 0, 60)
    try:
        iteration = agent.iterate(60)
    finally:
        agent.stop()
    spent = np.sort(ranged.budgeted[0].fraction(iteration.candidates))
    # Two candidates for each of five limits, all near the limit that they had to keep.
    np.testing.assert_allclose(spent, np.repeat([0.2, 0.3, 0.4, 0.5, 0.6], 2), atol=0.05)


@pytest.mark.slow
def test_amc_keeps_two_budgets_by_the_shield_alone_and_learns() -> None:
    budgets = {"flops": 0.5, "params": 0.4}
    spec = NamedSpec(name="amc", parameters={"candidates": 32})
    agent = make_agent(spec, _judge(budgets), 0, 384)
    iterations = [agent.iterate(384) for _ in range(12)]
    agent.stop()
    outcomes = [each.outcome for each in iterations if each.outcome is not None]
    assert len(outcomes) == 12
    assert all(outcome.feasible.all() for outcome in outcomes)
    for each in iterations:
        assert [each.figures[f"multipliers/{cost}"] for cost in budgets] == [0.0, 0.0]
    means = [float(np.mean(outcome.rewards)) for outcome in outcomes]
    assert np.mean(means[-3:]) > np.mean(means[:3])


def test_amc_refuses_what_no_shield_can_hold() -> None:
    judge = _judge({"flops": 0.5, "odd": 0.5}, costs=(MeasuredCost("odd", 0.0),))
    with pytest.raises(SpecError, match="cannot hold odd: it is known only after an evaluation"):
        make_agent(NamedSpec(name="amc"), judge, 0, 64)
