"""N episodes as one Gymnasium vector environment: all candidates are evaluated in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .episodes import Episodes
from .judge import Judge
from .problem import Problem
from .pruning_env import action_space, observation_space

__all__ = ["PruningVectorEnv"]

_Observations = NDArray[np.float32]


class PruningVectorEnv(VectorEnv[_Observations, NDArray[np.float32], NDArray[Any]]):
    """N episodes of `PruningEnv` in lock step.

    Autoreset is ``NEXT_STEP``: the step after the last one ignores its actions and returns the
    first observations of N new candidates, with rewards 0 and no infos. Infos are a dict of
    arrays with their ``_key`` masks.

    Args:
        problem: What is searched.
        num_envs: Number of episodes N.
        judge: Judges complete candidates. RLlib makes environments from plain values, so that it
            may have to be attached afterwards, with `attach`.
    """

    metadata = {  # noqa: RUF012 (Gymnasium declares it so)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, problem: Problem, num_envs: int, judge: Judge | None = None) -> None:
        self.num_envs = num_envs
        self.single_observation_space = observation_space(problem)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episodes = Episodes(problem, num_envs, judge)
        self._over = False

    def attach(self, judge: Judge) -> None:
        """Let ``judge`` judge complete candidates from now on."""
        self._episodes.judge = judge

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Observations, dict[str, Any]]:
        """Begin N new candidates; the environment has no randomness of its own."""
        self._over = False
        return self._episodes.reset(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[_Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Make the next decision of every candidate; ``actions`` is float32 [N, 1] in [-1, 1]."""
        nothing = np.zeros(self.num_envs, dtype=np.bool_)
        if self._over:
            observations, infos = self.reset()
            return observations, np.zeros(self.num_envs), nothing, nothing.copy(), infos
        step = self._episodes.step(np.asarray(actions).reshape(self.num_envs))
        infos = {"costs": step.costs.astype(np.float32)}
        if step.outcome is not None:
            infos["candidate"] = self._episodes.candidates
            infos["feasible"] = step.outcome.feasible
        infos |= {f"_{key}": np.ones(self.num_envs, dtype=np.bool_) for key in infos}
        self._over = step.outcome is not None
        over = np.full(self.num_envs, self._over)
        return step.observations, step.rewards, over, nothing, infos
