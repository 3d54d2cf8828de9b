"""N candidates decided in one step each: the environment of the agent that decides together."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ....envs.problem import Outcome, PruningProblem
from ....envs.vector_env import candidate_infos, spread_infos
from .allocation import Sensitivity
from .believed import BelievedCosts
from .candidate_map import CandidateMap
from .imagination import Imagination, Judged
from .moves import settle

__all__ = ["OneStepVectorEnv"]

_Observations = NDArray[np.float32]


class OneStepVectorEnv(VectorEnv[_Observations, NDArray[np.float32], NDArray[Any]]):
    """N episodes of one step: an action holds all widths of a candidate.

    See `CandidateMap` for actions. Observations are the limits
    of the budgets, float32 [N, B]. Where budgets are ranges, the N candidates are spread evenly
    over the K limits of `PruningProblem.front`; ``info["context"]``, int64 [N], says which one a
    candidate has to keep. They are not drawn at random, so that all limits are seen equally often
    and a restored search goes on as it would have.

    ``info["costs"]`` are the costs as shares of their limits, float32 [N, B], so that 1 is the
    limit whatever it is; ``widths``, ``feasible`` and ``evaluation`` are those of
    `PruningVectorEnv`, as is the autoreset. Of candidates that
    are only imagined ``info["imagined"]`` is true, rewards, costs and ``feasible`` are predicted,
    and there is no ``evaluation``; see `Imagination`.

    Args:
        problem: What is searched.
        num_envs: Number of episodes N, a multiple of 1 + ``imagined``.
        scaled: As for `CandidateMap`.
        sensitivity: As for `CandidateMap`.
        learn_costs: Whether candidates are scaled and moved to where measured costs are believed
            to keep their limits, see `CandidateMap` and `settle`.
        imagined: How many candidates are imagined for every one that is evaluated.
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
        imagined: int = 0,
    ) -> None:
        self.num_envs = num_envs
        self._evaluated = num_envs // (1 + imagined)
        self._imagination = Imagination(problem) if imagined else None
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
        believed = BelievedCosts(self._problem, self._learn_costs)
        widths = self._map.widths(np.asarray(actions, dtype=np.float64), self._limits, believed)
        widths = settle(self._problem, believed, widths, self._limits)
        chosen, outcome, judged = self._judge(widths, believed)
        costs = (judged.costs / self._limits).astype(np.float32)
        infos = spread_infos(
            candidate_infos(costs[chosen], widths[chosen], outcome), chosen, self.num_envs
        )
        of_all = {
            "costs": costs,
            "widths": widths,
            "feasible": judged.feasible,
            "context": self._contexts,
            "imagined": ~infos["_evaluation"],
        }
        infos |= of_all | {f"_{key}": ~never for key in of_all}
        self._over = True
        return self._observe(), judged.signals, ~never, never, infos

    def _judge(
        self, widths: NDArray[np.int64], believed: BelievedCosts
    ) -> tuple[NDArray[np.int64], Outcome, Outcome | Judged]:
        """Which candidates were evaluated, what became of these, and of all."""
        if self._imagination is None:
            outcome = self._problem.judge(widths, self._limits)
            return np.arange(self.num_envs), outcome, outcome
        chosen = self._imagination.choose(
            believed, widths, self._limits, self._contexts, self._evaluated
        )
        outcome = self._problem.judge(widths[chosen], self._limits[chosen])
        return chosen, outcome, self._imagination.complete(widths, self._limits, chosen, outcome)

    def _observe(self) -> _Observations:
        return self._limits.astype(np.float32)
