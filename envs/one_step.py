"""N candidates decided in one step each: the environment of the agent that decides together."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .believed import BelievedCosts
from .problem import PruningProblem
from .projection import CandidateMap
from .sensitivity import Sensitivity
from .settle import settle
from .vector_env import candidate_infos

__all__ = ["OneStepVectorEnv"]

_Observations = NDArray[np.float32]


class OneStepVectorEnv(VectorEnv[_Observations, NDArray[np.float32], NDArray[Any]]):
    """N episodes of one step: an action holds all widths of a candidate.

    See :class:`~prunetune.envs.projection.CandidateMap` for actions. Observations are the limits
    of the budgets, float32 [N, B]. Where budgets are ranges, the N candidates are spread evenly
    over the K limits of `PruningProblem.front`; ``info["context"]``, int64 [N], says which one a
    candidate has to keep. They are not drawn at random, so that all limits are seen equally often
    and a restored search goes on as it would have.

    ``info["costs"]`` are the costs as shares of their limits, float32 [N, B], so that 1 is the
    limit whatever it is; ``widths``, ``feasible`` and ``evaluation`` are those of
    :class:`~prunetune.envs.vector_env.PruningVectorEnv`, as is the autoreset.

    Args:
        problem: What is searched.
        num_envs: Number of episodes N.
        scaled: As for `CandidateMap`.
        sensitivity: As for `CandidateMap`.
        learn_costs: Whether candidates are scaled and moved to where measured costs are believed
            to keep their limits, see `CandidateMap` and :func:`~prunetune.envs.settle.settle`.
    """

    metadata = {  # noqa: RUF012 (Gymnasium declares it so)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        problem: PruningProblem,
        num_envs: int,
        scaled: bool = True,
        sensitivity: Sensitivity | None = None,
        learn_costs: bool = True,
    ) -> None:
        self.num_envs = num_envs
        self._problem, self._learn_costs = problem, learn_costs
        self._map = CandidateMap(problem, scaled, sensitivity)
        budgets = len(problem.budgets)
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (budgets,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (self._map.size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Observations, dict[str, Any]]:
        """Begin N new candidates."""
        self._over = False
        self._contexts = np.arange(self.num_envs) % len(self._problem.front)
        self._limits = self._problem.front[self._contexts]
        return self._observe(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[_Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Decide and evaluate N candidates; ``actions`` is float32 [N, size] in [-1, 1]."""
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if self._over:
            observations, infos = self.reset()
            return observations, np.zeros(self.num_envs), never, never.copy(), infos
        action = np.asarray(actions, dtype=np.float64)
        if self._learn_costs:
            believed = BelievedCosts(self._problem)
            widths = self._map.widths(action, self._limits, believed)
            widths = settle(self._problem, believed, widths, self._limits)
        else:
            widths = self._map.widths(action, self._limits)
        outcome = self._problem.judge(widths, self._limits)
        costs = (outcome.costs / self._limits).astype(np.float32)
        self._over = True
        infos = candidate_infos(costs, widths, outcome)
        infos |= {"context": self._contexts, "_context": ~never}
        return self._observe(), outcome.signals, ~never, never, infos

    def _observe(self) -> _Observations:
        return self._limits.astype(np.float32)
