"""Lagrangian PPO on small constrained MDPs whose optimum a linear program gives.

A random finite-horizon MDP with one cost is small enough to solve exactly: its optimal constrained
policy is a linear program over occupancy measures (Altman 1999, chapter 3). This script trains
LagrangianPPO on it for three limits, several seeds and both update rules, and prints how close it
comes:

    python benchmarks/constrained_mdp.py --seeds 5
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from prunetune.search.lagrangian import LagrangianPPO, LagrangianPPOConfig
from ray.tune.registry import register_env
from scipy.optimize import linprog

STATES, ACTIONS, HORIZON = 4, 3, 6
# Shares of what the best policy costs without a limit.
LIMITS = (0.4, 0.6, 0.8)


@dataclass(frozen=True)
class ConstrainedMDP:
    """A random MDP in which what pays also costs.

    Attributes:
        transitions: Probabilities, float64 [S, A, S].
        rewards: In [0, 1], float64 [S, A].
        costs: In [0, 1], float64 [S, A].
    """

    transitions: np.ndarray
    rewards: np.ndarray
    costs: np.ndarray

    @classmethod
    def random(cls, seed: int) -> ConstrainedMDP:
        """Draw one; costs rise with rewards, so that the limit binds."""
        rng = np.random.default_rng(seed)
        transitions = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
        rewards = np.sort(rng.uniform(0, 1, (STATES, ACTIONS)), axis=1)
        costs = np.clip(rewards**2 + rng.normal(0, 0.1, rewards.shape), 0, 1)
        return cls(transitions, rewards, costs)

    def optimum(self, limit: float | None) -> tuple[float, float]:
        """Best expected return of an episode whose expected cost is within ``limit``, by LP.

        Returns:
            Expected return and expected cost of the optimal policy.
        """
        shape = (HORIZON, STATES, ACTIONS)
        count = int(np.prod(shape))
        flows, sources = [], []
        for step in range(HORIZON):
            for state in range(STATES):
                flow = np.zeros(shape)
                flow[step, state] = 1.0
                if step:
                    flow[step - 1] -= self.transitions[:, :, state]
                flows.append(flow.reshape(-1))
                sources.append(0.0 if step else 1.0 / STATES)
        rewards = np.broadcast_to(self.rewards, shape).reshape(-1)
        costs = np.broadcast_to(self.costs, shape).reshape(-1)
        bound = {} if limit is None else {"A_ub": costs[None], "b_ub": [limit]}
        solution = linprog(-rewards, A_eq=np.array(flows), b_eq=sources, **bound)
        if solution.status != 0 or len(solution.x) != count:
            raise RuntimeError(solution.message)
        return float(-solution.fun), float(costs @ solution.x)


class ConstrainedMDPVectorEnv(VectorEnv[Any, Any, Any]):
    """N episodes of a :class:`ConstrainedMDP`; observes the state and the time, one-hot.

    Args:
        mdp: What is played.
        num_envs: Number of episodes N.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, mdp: ConstrainedMDP, num_envs: int) -> None:
        self.num_envs = num_envs
        size = STATES + HORIZON + 1
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)
        self.single_action_space = gym.spaces.Discrete(ACTIONS)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mdp = mdp
        self._rng = np.random.default_rng(0)
        self._time = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw the initial states uniformly."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._time = 0
        self._state = self._rng.integers(STATES, size=self.num_envs)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Play one step of all episodes."""
        running = np.zeros(self.num_envs, dtype=bool)
        if self._time == HORIZON:
            observations, infos = self.reset()
            return observations, np.zeros(self.num_envs), running, running.copy(), infos
        rewards = self._mdp.rewards[self._state, actions]
        costs = self._mdp.costs[self._state, actions]
        cumulative = self._mdp.transitions[self._state, actions].cumsum(axis=1)
        drawn = self._rng.uniform(size=(self.num_envs, 1))
        self._state = np.minimum((drawn > cumulative).sum(axis=1), STATES - 1)
        self._time += 1
        over = np.full(self.num_envs, self._time == HORIZON)
        infos = {"cost": costs, "_cost": np.ones(self.num_envs, dtype=bool)}
        return self._observe(), rewards, over, running, infos

    def _observe(self) -> np.ndarray:
        observations = np.zeros((self.num_envs, STATES + HORIZON + 1), dtype=np.float32)
        observations[np.arange(self.num_envs), self._state] = 1.0
        observations[:, STATES + self._time] = 1.0
        return observations


def build(mdp: ConstrainedMDP, limit: float, rule: str, seed: int, episodes: int) -> LagrangianPPO:
    """An agent for the MDP; the settings are the same for all limits, seeds and rules."""
    register_env(
        "constrained-mdp", lambda context: ConstrainedMDPVectorEnv(mdp, context["num_envs"])
    )
    return (
        LagrangianPPOConfig()
        .environment("constrained-mdp")
        .env_runners(
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            num_envs_per_env_runner=episodes,
        )
        .training(
            train_batch_size_per_learner=episodes * HORIZON,
            minibatch_size=episodes * HORIZON // 4,
            num_epochs=5,
        )
        .constraints(
            limits=[limit], rule=rule, multiplier_learning_rate=2.0, multiplier_damping=2.0
        )
        .debugging(seed=seed, log_level="ERROR")
        .build_algo()
    )


def result(algorithm: LagrangianPPO, iterations: int) -> tuple[float, float]:
    """Train, and average return and cost of the last quarter of the iterations."""
    curve = [algorithm.train()["lagrangian"] for _ in range(iterations)]
    last = curve[-max(1, iterations // 4) :]
    returns = np.mean([row["episode_return"] for row in last])
    return float(returns), float(np.mean([row["episode_costs"]["0"] for row in last]))


def main() -> None:
    """Run the grid and print a table."""
    # Here, so that tests can take the MDP from this file without the folder on their path.
    from _common import print_result, print_table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--smoke", action="store_true", help="one iteration: figures mean nothing")
    options = parser.parse_args()
    seeds, iterations = (1, 1) if options.smoke else (options.seeds, options.iterations)
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    mdp = ConstrainedMDP.random(0)
    rows = []
    for share, rule in itertools.product(LIMITS, ("lagrange", "pid")):
        limit = share * mdp.optimum(None)[1]
        optimum, _ = mdp.optimum(limit)
        found = []
        started = time.perf_counter()
        for seed in range(seeds):
            algorithm = build(mdp, limit, rule, seed, options.episodes)
            returned, cost = result(algorithm, iterations)
            algorithm.stop()
            found.append((returned / optimum, cost / limit))
        seconds = (time.perf_counter() - started) / seeds
        returns, costs = np.array(found).T
        row = [f"{limit:.3f}", rule, returns.mean(), returns.min(), costs.mean(), costs.min()]
        rows.append([*row, costs.max(), f"{seconds:.0f}"])
        print(*rows[-1], flush=True)
    columns = ["limit", "rule", "return/optimum", "lowest", "cost/limit", "lowest", "highest"]
    title = f"Means over {seeds} seeds of the last quarter of {iterations} iterations"
    print_table(title, [*columns, "seconds"], rows)
    print_result("constrained_mdp", seeds=seeds, iterations=iterations, rows=rows)
    ray.shutdown()


if __name__ == "__main__":
    main()
