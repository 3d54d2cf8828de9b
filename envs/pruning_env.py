"""The Gymnasium environment: one candidate, one group a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from .episodes import Episodes
from .problem import Outcome, PruningProblem

__all__ = ["PruningEnv", "action_space", "candidate_scalars", "observation_space"]


def observation_space(problem: PruningProblem) -> gym.spaces.Box:
    """Observations of one episode: float32 in [-1, 1], of shape [D]."""
    size = Episodes(problem, 1).reset().shape[1]
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def action_space() -> gym.spaces.Box:
    """Actions of one episode: see `WidthMap`."""
    return gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


def candidate_scalars(outcome: Outcome, index: int) -> dict[str, float]:
    """Measures and costs of one candidate by name, for ``info["evaluation"]``."""
    evaluation = outcome.evaluations[index]
    return {**evaluation.measures, **evaluation.costs}


class PruningEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One episode decides the width of every group and ends with the candidate's reward.

    ``info["costs"]`` is, at every step, what became known of each budget's cost as a fraction of
    the dense network's, float32 [B]; over an episode it adds up to the candidate's costs. The last
    ``info`` also has ``widths`` (int64 [G]), ``feasible`` (bool) and ``evaluation`` (measures and
    costs by name).

    Args:
        problem: What is searched.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, problem: PruningProblem) -> None:
        self.observation_space = observation_space(problem)
        self.action_space = action_space()
        self._episodes = Episodes(problem, 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new candidate; the environment has no randomness of its own."""
        super().reset(seed=seed)
        return self._episodes.reset()[0], {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Decide the width of the next group; ``action`` is float32 [1] in [-1, 1]."""
        step = self._episodes.step(np.asarray(action).reshape(1))
        info: dict[str, Any] = {"costs": step.costs[0].astype(np.float32)}
        if step.outcome is not None:
            info["widths"] = self._episodes.candidates[0]
            info["feasible"] = bool(step.outcome.feasible[0])
            info["evaluation"] = candidate_scalars(step.outcome, 0)
        over = step.outcome is not None
        return step.observations[0], float(step.rewards[0]), over, False, info
