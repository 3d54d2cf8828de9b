"""The Gymnasium environment: one candidate, one decision a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from .episodes import Episodes
from .judge import Judge
from .problem import Problem

__all__ = ["PruningEnv", "action_space", "observation_space"]


def observation_space(problem: Problem) -> gym.spaces.Box:
    """Observations of one episode: float32 in [-1, 1], of shape [O]."""
    size = Episodes(problem, 1).reset().shape[1]
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def action_space() -> gym.spaces.Box:
    """Actions of one episode: see `ActionMap`."""
    return gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class PruningEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One episode makes every decision and ends with the candidate's reward.

    ``info["costs"]`` is, at every step, what became known of each budget's cost as a fraction of
    the dense network's, float32 [B]; over an episode it adds up to the candidate's costs. The last
    ``info`` also has ``candidate`` (int64 [D]) and ``feasible`` (bool). Measures and all costs are
    in the judge's past.

    Args:
        judge: Judges complete candidates.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, judge: Judge) -> None:
        self.observation_space = observation_space(judge.problem)
        self.action_space = action_space()
        self._episodes = Episodes(judge.problem, 1, judge)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new candidate; the environment has no randomness of its own."""
        super().reset(seed=seed)
        return self._episodes.reset()[0], {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Make the next decision; ``action`` is float32 [1] in [-1, 1]."""
        step = self._episodes.step(np.asarray(action).reshape(1))
        info: dict[str, Any] = {"costs": step.costs[0].astype(np.float32)}
        if step.outcome is not None:
            info["candidate"] = self._episodes.candidates[0]
            info["feasible"] = bool(step.outcome.feasible[0])
        over = step.outcome is not None
        return step.observations[0], float(step.rewards[0]), over, False, info
