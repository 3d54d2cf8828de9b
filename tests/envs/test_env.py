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
from prunetune.envs.budgets import minimum_widths
from prunetune.envs.problem import PruningProblem
from prunetune.envs.pruning_env import PruningEnv
from prunetune.envs.vector_env import PruningVectorEnv
from prunetune.errors import EvaluationError
from prunetune.models.costs.cost import MeasuredCost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.rewards.registry import make_reward
from prunetune.search.agents.together.environment import OneStepVectorEnv

from .structures import AnalyticEvaluator, chain, problem, structures

BUDGETS = {"flops": 0.5, "params": 0.6}


@pytest.mark.parametrize("shield", [False, True])
def test_gymnasiums_own_checker_passes(shield: bool) -> None:
    check_env(PruningEnv(problem(chain([16, 32, 8]), BUDGETS, shield)), skip_render_check=True)


@settings(max_examples=40, deadline=None)
@given(structures(), st.data(), st.booleans())
def test_step_costs_add_up_and_observations_stay_in_their_space(
    structure: Structure, data: st.DataObject, shield: bool
) -> None:
    narrowest = minimum_widths(structure)[None]
    costs = counted_costs(structure)
    assume(all(cost.fraction(narrowest)[0] < 0.9 for cost in costs.values()))
    env = PruningEnv(problem(structure, {"flops": 0.9, "params": 0.9}, shield))
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
    widths = info["widths"][None]
    expected = [costs[name].fraction(widths)[0] for name in ("flops", "params")]
    np.testing.assert_allclose(total, expected, atol=1e-6)
    assert info["feasible"] == (max(expected) <= 0.9)
    assert info["feasible"] or not shield
    assert reward == pytest.approx(info["evaluation"]["accuracy"])


def test_action_zero_everywhere_gives_the_uniform_candidate() -> None:
    structure = chain([16, 32, 64])
    task = problem(structure, {"flops": 0.5})
    env = PruningEnv(task)
    env.reset()
    for _ in structure.groups:
        *_, info = env.step(np.zeros(1, dtype=np.float32))
    fraction = uniform_fraction(structure, task.budgets, task.limited)
    assert info["widths"].tolist() == np.rint(fraction * structure.sizes).tolist()
    assert info["feasible"]


def test_the_vector_environment_is_n_single_ones_and_evaluates_once() -> None:
    structure = chain([16, 32, 8, 8])
    task = problem(structure, BUDGETS, shield=True)
    assert isinstance(task.evaluate, AnalyticEvaluator)
    vector = DictInfoToList(PruningVectorEnv(task, 5))
    singles = [PruningEnv(problem(structure, BUDGETS, shield=True)) for _ in range(5)]
    rng = np.random.default_rng(0)
    for _ in range(2):
        observations, infos = vector.reset()
        alone = [env.reset() for env in singles]
        np.testing.assert_array_equal(observations, [observation for observation, _ in alone])
        task.evaluate.calls.clear()
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
                    np.testing.assert_array_equal(infos[index]["widths"], info["widths"])
                    assert infos[index]["feasible"] == info["feasible"]
                    assert infos[index]["evaluation"] == info["evaluation"]
        assert task.evaluate.calls == [5]
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
    task = problem(structure, {"flops": 0.5, "odd": 0.4}, costs=(MeasuredCost("odd"),))
    env = PruningEnv(task)
    env.reset()
    costs = []
    for action in (1.0, 1.0):
        *_, info = env.step(np.array([action], dtype=np.float32))
        costs.append(info["costs"][1])
    assert costs == [0.0, 0.5]
    assert not info["feasible"]


def test_sensitivity_is_shown_scaled_and_checked() -> None:
    structure = chain([8, 8, 8])
    plain = PruningEnv(problem(structure, BUDGETS)).reset()[0]
    sensitivity = np.array([[100.0], [300.0], [200.0]])
    env = PruningEnv(problem(structure, BUDGETS, sensitivity=sensitivity))
    seen = [env.reset()[0]]
    for _ in range(2):
        seen.append(env.step(np.zeros(1, dtype=np.float32))[0])
    assert len(seen[0]) == len(plain) + 1
    column = next(c for c in range(len(seen[0])) if [row[c] for row in seen] == [0.0, 1.0, 0.5])
    assert column == 11
    with pytest.raises(ValueError, match="shape"):
        PruningEnv(problem(structure, BUDGETS, sensitivity=sensitivity[:2]))


def _fail(task: PruningProblem, answers: list[Evaluation]) -> PruningProblem:
    changed = {**vars(task), "evaluate": lambda candidates: answers}
    return PruningProblem(**{name: changed[name] for name in PruningProblem.__dataclass_fields__})


def test_failed_and_diverged_candidates_get_the_lowest_reward_and_are_infeasible() -> None:
    task = problem(chain([4]), {"flops": 1.0})
    answers = [
        Evaluation((1,), {"accuracy": 0.7}),
        Evaluation((2,), {}, error="out of memory"),
        Evaluation((3,), {"accuracy": 0.4}),
        Evaluation((4,), {"accuracy": float("nan")}),
    ]
    outcome = _fail(task, answers).judge(np.array([[1], [2], [3], [4]]))
    assert outcome.rewards.tolist() == [0.7, 0.4, 0.4, 0.4]
    assert outcome.feasible.tolist() == [True, False, True, False]
    alone = _fail(task, answers[1:2]).judge(np.array([[2]]))
    assert alone.rewards.tolist() == [0.0]


def test_an_evaluator_that_breaks_its_promise_is_refused() -> None:
    good = Evaluation((1,), {"accuracy": 0.7})
    with pytest.raises(EvaluationError, match="1 evaluations for 2 candidates"):
        _fail(problem(chain([4]), BUDGETS), [good]).judge(np.array([[1], [2]]))
    task = problem(chain([4]), {"memory": 0.5}, costs=(MeasuredCost("memory"),))
    with pytest.raises(EvaluationError, match="memory"):
        _fail(task, [good]).judge(np.array([[1]]))


def test_agents_are_told_what_the_reward_makes_of_values_feasibility_and_the_best_so_far() -> None:
    task = problem(chain([4]), {"flops": 0.6})
    answers = [Evaluation((width,), {"accuracy": 0.1 * width}) for width in (1, 2, 4)]
    competing = dataclasses.replace(
        task,
        evaluate=lambda candidates: answers,
        reward=make_reward("self-competition"),
        best=lambda: 0.15,
    )
    outcome = competing.judge(np.array([[1], [2], [4]]))
    assert outcome.rewards.tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert outcome.signals.tolist() == [-1, 1, -1]
    environment = OneStepVectorEnv(competing, 3)
    environment.reset()
    actions = np.zeros((3, environment.single_action_space.shape[0]), dtype=np.float32)
    assert environment.step(actions)[1].tolist() == [-1, 1, 1]
