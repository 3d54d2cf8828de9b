"""The environments against their contract and against each other."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import DictInfoToList
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prunetune.envs.actions import uniform_fraction
from prunetune.envs.budgets import Budget
from prunetune.envs.judge import Judge
from prunetune.envs.problem import Outcome, Problem
from prunetune.envs.pruning_env import PruningEnv
from prunetune.envs.vector_env import PruningVectorEnv
from prunetune.errors import EvaluationError
from prunetune.models.costs.cost import MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.rewards.registry import make_reward

from .structures import AnalyticEvaluator, Answers, chain, judge, problem, space, structures

BUDGETS = {"flops": 0.5, "params": 0.6}


@pytest.mark.parametrize("shield", [False, True])
def test_gymnasiums_own_checker_passes(shield: bool) -> None:
    env = PruningEnv(judge(chain([16, 32, 8]), BUDGETS, shield=shield))
    check_env(env, skip_render_check=True)


@settings(max_examples=40, deadline=None)
@given(structures(), st.data(), st.booleans())
def test_step_costs_add_up_and_observations_stay_in_their_space(
    structure: Structure, data: st.DataObject, shield: bool
) -> None:
    narrowest = space(structure).smallest[None]
    costs = counted_costs(structure)
    assume(all(cost.fraction(narrowest)[0] < 0.9 for cost in costs.values()))
    asked = judge(structure, {"flops": 0.9, "params": 0.9}, shield=shield)
    env = PruningEnv(asked)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    total = np.zeros(2)
    for step in range(len(structure.groups)):
        action = np.array([data.draw(st.floats(-1, 1))], dtype=np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        total += info["costs"]
        assert not truncated
        assert terminated == (step == len(structure.groups) - 1)
        assert terminated or reward == 0
    widths = info["candidate"][None]
    expected = [costs[name].fraction(widths)[0] for name in ("flops", "params")]
    np.testing.assert_allclose(total, expected, atol=1e-6)
    assert info["feasible"] == (max(expected) <= 0.9)
    assert info["feasible"] or not shield
    assert reward == pytest.approx(asked.past.rewards[-1])
    assert tuple(info["candidate"]) == tuple(asked.past.candidates[-1])


def test_action_zero_everywhere_gives_the_uniform_candidate() -> None:
    structure = chain([16, 32, 64])
    asked = judge(structure, {"flops": 0.5})
    task = asked.problem
    env = PruningEnv(asked)
    env.reset()
    for _ in structure.groups:
        *_, info = env.step(np.zeros(1, dtype=np.float32))
    fraction = uniform_fraction(task.space, task.budgets, task.budgeted)
    assert info["candidate"].tolist() == np.rint(fraction * structure.sizes).tolist()
    assert info["feasible"]


def test_the_vector_environment_is_n_single_ones_and_evaluates_once() -> None:
    structure = chain([16, 32, 8, 8])
    evaluator = AnalyticEvaluator(structure)
    asked = Judge(problem(structure, BUDGETS, shield=True), evaluator)
    vector = DictInfoToList(PruningVectorEnv(asked.problem, 5, asked))
    singles = [PruningEnv(judge(structure, BUDGETS, shield=True)) for _ in range(5)]
    rng = np.random.default_rng(0)
    for _ in range(2):
        observations, infos = vector.reset()
        alone = [env.reset() for env in singles]
        np.testing.assert_array_equal(observations, [observation for observation, _ in alone])
        evaluator.calls.clear()
        for _ in structure.groups:
            actions = rng.uniform(-1, 1, (5, 1)).astype(np.float32)
            observations, rewards, over, cut, infos = vector.step(actions)
            for index, env in enumerate(singles):
                observation, reward, terminated, truncated, info = env.step(actions[index])
                np.testing.assert_array_equal(observations[index], observation)
                assert (rewards[index], over[index], cut[index]) == (reward, terminated, truncated)
                assert infos[index].keys() == info.keys()
                np.testing.assert_array_equal(infos[index]["costs"], info["costs"])
                if terminated:
                    np.testing.assert_array_equal(infos[index]["candidate"], info["candidate"])
                    assert infos[index]["feasible"] == info["feasible"]
        assert evaluator.calls == [5]
        # The next step only resets, as autoreset mode NEXT_STEP says.
        observations, rewards, over, _, infos = vector.step(actions)
        np.testing.assert_array_equal(observations, [observation for observation, _ in alone])
        assert not rewards.any() and not over.any() and infos == [{}] * 5


def test_the_vector_environment_runs_under_gymnasiums_registry() -> None:
    task = problem(chain([4, 4]), BUDGETS)
    gym.register(
        "prunetune-test-v0", vector_entry_point=lambda num_envs: PruningVectorEnv(task, num_envs)
    )
    env = gym.make_vec("prunetune-test-v0", 3, vectorization_mode="vector_entry_point")
    observations, _ = env.reset(seed=1)
    assert observations in env.observation_space
    env.close()


def test_a_measured_cost_is_charged_at_the_last_step() -> None:
    structure = chain([7, 8])
    env = PruningEnv(judge(structure, {"flops": 0.5, "odd": 0.4}, costs=(MeasuredCost("odd"),)))
    env.reset()
    costs = []
    for action in (1.0, 1.0):
        *_, info = env.step(np.array([action], dtype=np.float32))
        costs.append(info["costs"][1])
    assert costs == [0.0, 0.5]
    assert not info["feasible"]


def _judged(task: Problem, answers: list[Evaluation], candidates: list[list[int]]) -> Outcome:
    return Judge(task, Answers(answers)).ask(np.array(candidates))


def test_what_is_asked_for_is_past_and_the_best_of_it_is_known() -> None:
    task = problem(chain([4]), {"flops": 0.6})
    answers = [
        Evaluation((1,), {"accuracy": 0.7}, {"own": 0.5}),
        Evaluation((2,), {}, error="out of memory"),
        Evaluation((4,), {"accuracy": 0.9}, {"own": 1.0}),
    ]
    asked = Judge(task, Answers(answers))
    assert asked.past.candidates.size == 0 and asked.past.best == -np.inf
    outcome = asked.ask(np.array([[1], [2], [4]]))
    past = asked.past
    assert past.candidates.tolist() == [[1], [2], [4]]
    np.testing.assert_array_equal(past.rewards, [0.7, np.nan, 0.9])
    np.testing.assert_array_equal(past.costs("own"), [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(np.isnan(past.costs("flops")), [False, True, False])
    # The dense network is the best, but keeps no budget.
    assert past.best == 0.7 and outcome.feasible.tolist() == [True, False, False]
    assert asked.last is not None and asked.last[1] is outcome
    asked.ask(np.array([[1], [2], [4]]))
    assert len(past) == 6


def test_episodes_without_a_judge_cannot_end() -> None:
    env = PruningVectorEnv(problem(chain([4]), BUDGETS), 2)
    env.reset()
    with pytest.raises(RuntimeError, match="nobody to judge"):
        env.step(np.zeros((2, 1), dtype=np.float32))


def test_failed_and_diverged_candidates_get_the_lowest_reward_and_are_infeasible() -> None:
    task = problem(chain([4]), {"flops": 1.0})
    answers = [
        Evaluation((1,), {"accuracy": 0.7}),
        Evaluation((2,), {}, error="out of memory"),
        Evaluation((3,), {"accuracy": 0.4}),
        Evaluation((4,), {"accuracy": float("nan")}),
    ]
    outcome = _judged(task, answers, [[1], [2], [3], [4]])
    assert outcome.rewards.tolist() == [0.7, 0.4, 0.4, 0.4]
    assert outcome.feasible.tolist() == [True, False, True, False]
    alone = _judged(task, answers[1:2], [[2]])
    assert alone.rewards.tolist() == [0.0]


def test_an_evaluator_that_breaks_its_promise_is_refused() -> None:
    good = Evaluation((1,), {"accuracy": 0.7})
    with pytest.raises(EvaluationError, match="1 evaluations for 2 candidates"):
        _judged(problem(chain([4]), BUDGETS), [good], [[1], [2]])
    task = problem(chain([4]), {"memory": 0.5}, costs=(MeasuredCost("memory"),))
    with pytest.raises(EvaluationError, match="memory"):
        _judged(task, [good], [[1]])


def test_agents_are_told_what_the_reward_makes_of_values_feasibility_and_the_best_so_far() -> None:
    task = problem(chain([4]), {"flops": 0.6})
    answers = [Evaluation((width,), {"accuracy": 0.1 * width}) for width in (1, 2, 4)]
    competing = dataclasses.replace(task, reward=make_reward("self-competition"))
    candidates = np.array([[1], [2], [4]])
    outcome = competing.judge(candidates, answers, best=0.15)
    assert outcome.rewards.tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert outcome.signals.tolist() == [-1, 1, -1]
    # A judge knows the best so far itself.
    asked = Judge(competing, Answers(answers))
    asked.ask(candidates)
    assert asked.past.best == pytest.approx(0.2)
    assert asked.ask(candidates).signals.tolist() == [-1, -1, -1]


def test_what_a_candidate_has_to_keep_may_differ_from_candidate_to_candidate() -> None:
    ranged = dataclasses.replace(
        problem(chain([8, 8]), {"flops": 0.8}), budgets=(Budget("flops", 0.8, lowest=0.2),)
    )
    asked = Judge(ranged, AnalyticEvaluator(chain([8, 8])))
    same = np.array([[5, 5], [5, 5]])
    outcome = asked.ask(same, np.array([[0.2], [0.8]]))
    assert outcome.feasible.tolist() == [False, True]
    assert asked.ask(same).feasible.tolist() == [True, True]


def test_every_budget_has_to_be_kept() -> None:
    task = problem(chain([8]), {"flops": 1.0, "odd": 0.5}, costs=(MeasuredCost("odd"),))
    outcome = Judge(task, AnalyticEvaluator(chain([8]))).ask(np.array([[7], [6]]))
    assert (outcome.costs[:, 0] <= 1.0).all()
    assert outcome.feasible.tolist() == [False, True]


def test_a_failed_candidate_costs_at_least_the_dense_network_and_at_least_the_limit() -> None:
    budgets = {"small": 0.5, "large": 3.0}
    task = problem(chain([4]), budgets, costs=(MeasuredCost("small"), MeasuredCost("large")))
    failed = Evaluation((2,), {}, error="out of memory")
    outcome = Judge(task, Answers([failed])).ask(np.array([[2]]))
    assert outcome.costs.tolist() == [[1.0, 3.0]]
    assert not outcome.feasible.any()
