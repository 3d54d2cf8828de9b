"""Agents: budgets kept, exact continuation, failures survived, names and parameters checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.envs.budgets import Budget
from prunetune.envs.judge import Judge
from prunetune.envs.problem import Problem
from prunetune.errors import PluginError, SpecError, UnknownNameError
from prunetune.rewards import NamedSpec
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.agents import BlackBoxAgent, check_agent, make_agent
from prunetune.search.agents.optuna_based import CmaEsAgent, TpeAgent
from prunetune.search.agents.ppo import candidates_per_iteration
from prunetune.search.agents.random_search import RandomAgent
from prunetune.search.agents.scaling import rescale
from prunetune.search.agents.sensitivity import SensitivityAgent
from prunetune.search.agents.uniform import UniformAgent
from prunetune.testing import check_agent as check_agent_conforms

from ..envs import structures

STRUCTURE = structures.chain([16, 32, 32, 64])


def _judge(budgets: dict[str, float] | None = None, **options: Any) -> Judge:
    judge: Judge = structures.judge(STRUCTURE, budgets or {"flops": 0.5}, **options)
    return judge


def _with(problem: Problem) -> Judge:
    return Judge(problem, structures.AnalyticEvaluator(STRUCTURE))


def _best(agent: BlackBoxAgent, evaluations: int) -> float:
    best, asked = -np.inf, 0
    while asked < evaluations:
        iteration = agent.iterate(evaluations - asked)
        if iteration.outcome is None:
            break
        asked += len(iteration.candidates)
        rewards = iteration.outcome.rewards[iteration.outcome.feasible]
        best = max(best, rewards.max(initial=-np.inf))
    assert asked <= evaluations
    return best


def test_uniform_begins_with_the_widest_uniform_candidate_and_soon_has_no_more() -> None:
    judge = _judge()
    problem = judge.problem
    agent = UniformAgent(judge, 0, 100, fractions=4)
    first = agent.iterate(100)
    assert len(first.candidates) == 4
    assert first.outcome is not None and first.outcome.feasible.all()
    np.testing.assert_array_equal(first.candidates[0], problem.action_map.uniform)
    # One more unit in every group would break the budget.
    assert not problem.tabulated.keep(np.minimum(first.candidates[:1] + 1, problem.space.sizes))[0]
    assert agent.iterate(96).outcome is None


@pytest.mark.parametrize("budgets", [{"flops": 0.5}, {"flops": 0.4, "params": 0.2}])
def test_random_candidates_use_their_budgets_up_and_keep_them(budgets: dict[str, float]) -> None:
    judge = _judge(budgets)
    problem = judge.problem
    widths = RandomAgent(judge, 0, 200, candidates=200).ask(200)
    costs = np.stack([cost.fraction(widths) for cost in problem.budgeted], axis=1)
    limits = np.array(list(budgets.values()))
    assert (costs <= limits).all()
    # The tightest budget is nearly used up: rounding leaves at most a few per cent.
    assert np.median((costs / limits).max(axis=1)) > 0.95
    assert len({tuple(row) for row in widths.tolist()}) > 150


def test_sensitivities_alone_beat_uniform_widths_and_are_asked_for_once() -> None:
    judge = _judge({"flops": 0.5, "params": 0.6})
    problem = judge.problem
    agent = SensitivityAgent(judge, 0, 100)
    narrowed = agent.iterate(100)
    sizes = problem.space.sizes
    assert ((narrowed.candidates != sizes).sum(axis=1) <= 1).all()
    assert len(narrowed.candidates) <= 20
    allocated = agent.iterate(80)
    assert allocated.outcome is not None and allocated.outcome.feasible.all()
    assert allocated.outcome.rewards.max() > _best(UniformAgent(_with(problem), 0, 8), 8)
    assert agent.iterate(60).outcome is None


def test_sensitivities_need_evaluations() -> None:
    with pytest.raises(SpecError, match="evaluations of at least 25"):
        SensitivityAgent(_judge(), 0, 24)
    assert SensitivityAgent(_judge(), 0, 25).iterate(25).outcome is not None


@pytest.mark.parametrize("kind", [UniformAgent, RandomAgent, SensitivityAgent])
def test_baselines_use_up_every_limit_of_a_range(kind: type[BlackBoxAgent]) -> None:
    problem = _judge({"flops": 0.7}).problem
    ranged = dataclasses.replace(problem, budgets=(Budget("flops", 0.7, lowest=0.3),))
    agent = kind(_with(ranged), 0, 80)
    if kind is SensitivityAgent:
        agent.iterate(80)
    widths = agent.iterate(20).candidates
    spent = ranged.budgeted[0].fraction(widths)
    for limit in (0.3, 0.4, 0.5, 0.6, 0.7):
        assert ((spent <= limit) & (spent > 0.93 * limit)).any()


def test_rescaling_keeps_what_is_within_the_budgets_full() -> None:
    problem = _judge({"flops": 1.0}).problem
    widths = rescale(problem, np.full((1, 4), 0.3))
    np.testing.assert_array_equal(widths[0], problem.space.sizes)


@pytest.mark.parametrize(
    "kind", [UniformAgent, RandomAgent, SensitivityAgent, TpeAgent, CmaEsAgent]
)
def test_a_restored_agent_continues_exactly(kind: type[BlackBoxAgent], tmp_path: Path) -> None:
    agent = kind(_judge(), 3, 96)
    for _ in range(2):
        agent.iterate(5)
    agent.save(tmp_path)
    expected = [agent.iterate(5).candidates.tolist() for _ in range(3)]
    restored = kind(_judge(), 3, 96)
    restored.load(tmp_path)
    assert [restored.iterate(5).candidates.tolist() for _ in range(3)] == expected


@pytest.mark.parametrize("kind", [RandomAgent, TpeAgent, CmaEsAgent])
def test_seeds_decide_everything(kind: type[BlackBoxAgent]) -> None:
    def asked(seed: int) -> list[list[int]]:
        agent = kind(_judge(), seed, 64)
        return [row for _ in range(4) for row in agent.iterate(16).candidates.tolist()]

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)


@pytest.mark.parametrize("kind", [TpeAgent, CmaEsAgent])
def test_optimisers_start_at_the_uniform_candidate_and_improve_on_it(
    kind: type[BlackBoxAgent],
) -> None:
    judge = _judge()
    problem = judge.problem
    first = kind(judge, 0, 200).iterate(1).candidates[0]
    np.testing.assert_array_equal(first, problem.action_map.uniform)
    uniform = _best(UniformAgent(_with(problem), 0, 8), 8)
    assert _best(kind(_with(problem), 0, 200), 200) > uniform


@pytest.mark.parametrize("kind", [RandomAgent, TpeAgent, CmaEsAgent])
def test_failed_evaluations_are_infeasible_and_stop_nobody(kind: type[BlackBoxAgent]) -> None:
    class EveryThirdFails(structures.AnalyticEvaluator):
        def evaluate(self, candidates: Sequence[tuple[int, ...]]) -> list[Evaluation]:
            return [
                Evaluation(each.candidate, error="out of memory") if number % 3 == 0 else each
                for number, each in enumerate(super().evaluate(candidates))
            ]

    agent = kind(Judge(_judge().problem, EveryThirdFails(STRUCTURE)), 0, 64)
    for _ in range(4):
        outcome = agent.iterate(16).outcome
        assert outcome is not None
        assert not outcome.feasible[::3].any()
        assert np.isfinite(outcome.rewards).all()


def test_the_shield_makes_every_candidate_of_an_optimiser_feasible() -> None:
    agent = TpeAgent(_judge(shield=True), 0, 64)
    for _ in range(3):
        outcome = agent.iterate(16).outcome
        assert outcome is not None and outcome.feasible.all()


@pytest.mark.parametrize(
    ("evaluations", "count"),
    [(1000, 25), (320, 32), (300, 30), (192, 24), (96, 12), (4, 1), (1, 1)],
)
def test_iterations_use_the_evaluations_up(evaluations: int, count: int) -> None:
    assert candidates_per_iteration(evaluations) == count
    assert evaluations % count == 0


def test_a_prime_number_of_evaluations_leaves_a_short_last_iteration() -> None:
    assert 997 % candidates_per_iteration(997) < 8


def test_names_and_parameters_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        check_agent(NamedSpec(name="randon"))
    with pytest.raises(SpecError, match="no parameter 'candidate'; did you mean 'candidates'"):
        check_agent(NamedSpec(name="ppo-lagrangian", parameters={"candidate": 3}))
    with pytest.raises(SpecError, match="no parameter 'seed'"):
        check_agent(NamedSpec(name="random", parameters={"seed": 3}))
    own = tmp_path / "own.py"
    own.write_text("class NotAnAgent: ...\n")
    with pytest.raises(PluginError, match="must be a subclass"):
        check_agent(NamedSpec(name=f"{own}:NotAnAgent"))


def test_a_users_own_agent_is_built_from_its_file(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from prunetune.search.agents.random_search import RandomAgent\n"
        "class Mine(RandomAgent):\n    name = 'mine'\n"
    )
    spec = NamedSpec(name=f"{own}:Mine", parameters={"candidates": 5})
    agent = make_agent(spec, _judge(), 0, 10)
    assert len(agent.iterate(10).candidates) == 5
    with pytest.raises(SpecError, match="cannot be built"):
        make_agent(NamedSpec(name="random", parameters={"candidates": 0}), _judge(), 0, 10)


@pytest.mark.parametrize(
    "kind", [UniformAgent, RandomAgent, SensitivityAgent, TpeAgent, CmaEsAgent]
)
def test_our_agents_conform(kind: type[BlackBoxAgent]) -> None:
    check_agent_conforms(kind)


class _Forgetful(RandomAgent):
    """Does not save where it is."""

    name = "forgetful"

    def set_state(self, state: Any) -> None:
        """Nothing is taken up."""


class _Moody(RandomAgent):
    """Takes its randomness from elsewhere."""

    name = "moody"

    def __init__(self, judge: Judge, seed: int, evaluations: int) -> None:
        super().__init__(judge, np.random.randint(1_000_000), evaluations)


class _Greedy(RandomAgent):
    """Proposes what is not in the space."""

    name = "greedy"

    def ask(self, count: int) -> Any:
        """One more of everything than there is."""
        return super().ask(count) * 0 + self.problem.space.sizes + 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_Forgetful, "after save and load"),
        (_Moody, "same seed"),
        (_Greedy, "not in the space"),
    ],
)
def test_faulty_agents_are_told_why(kind: type[BlackBoxAgent], reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        check_agent_conforms(kind)  # type: ignore[arg-type]
