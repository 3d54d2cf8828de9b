"""LagrangianPPO on an environment of your own: spend at most so much, whatever it is.

A toy shop: every day an offer is drawn that pays 0.2, 0.5 or 1, and you take it or leave it. On
average you may take 2 in 5 days. The best policy takes every offer that pays 1, which are 5 / 3,
and one in five of those that pay 0.5; that is worth 5 / 3 + 1 / 6 = 1.833:

    python examples/lagrangian_ppo.py
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from prunetune.search.lagrangian import LagrangianPPO, LagrangianPPOConfig
from ray import tune
from ray.tune.registry import register_env

DAYS, LIMIT = 5, 2.0
OFFERS = np.array([0.2, 0.5, 1.0])
OPTIMUM = 5 / 3 + 1 / 6


class Shop(gym.Env[np.ndarray, np.ndarray]):
    """One offer a day, to be taken (action 1) or left (0)."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (len(OFFERS),), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin with the first day."""
        super().reset(seed=seed)
        self._day = 0
        return self._observe(), {}

    def step(self, action: int) -> Any:
        """Every step reports its costs, one number for each, in ``info``."""
        reward = float(OFFERS[self._offer] * action)
        self._day += 1
        return self._observe(), reward, self._day == DAYS, False, {"costs": [float(action)]}

    def _observe(self) -> np.ndarray:
        self._offer = int(self.np_random.integers(len(OFFERS)))
        return np.eye(len(OFFERS), dtype=np.float32)[self._offer]


def make_config(seed: int = 0) -> LagrangianPPOConfig:
    """Everything that ``PPOConfig`` knows can be set, too."""
    register_env("shop", lambda context: Shop())
    return (
        LagrangianPPOConfig()
        .environment("shop")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(train_batch_size_per_learner=96 * DAYS, minibatch_size=120, num_epochs=5)
        .training(entropy_coeff=0.02)
        .constraints(
            limits=[LIMIT], names=["taken"], multiplier_learning_rate=0.3, multiplier_damping=3.0
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def main(iterations: int) -> None:
    """Train under Tune, whose TensorBoard logs then have a curve for everything."""
    tuner = tune.Tuner(
        LagrangianPPO,
        param_space=make_config(),
        run_config=tune.RunConfig(name="lagrangian-ppo", stop={"training_iteration": iterations}),
    )
    result = tuner.fit()[0]
    last = result.metrics_dataframe.tail(iterations // 3)
    print(f"return {last['lagrangian/episode_return'].mean():.3f} of {OPTIMUM:.3f}")
    print(f"taken {last['lagrangian/episode_costs/taken'].mean():.3f} of {LIMIT}")
    print(f"multiplier {last['lagrangian/multipliers/taken'].mean():.3f}")
    print(f"tensorboard --logdir {result.path}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
