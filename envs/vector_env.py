"""N episodes as one Gymnasium vector environment: all candidates are evaluated in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .episodes import Episodes
from .problem import Outcome, PruningProblem
from .pruning_env import action_space, candidate_scalars, observation_space

__all__ = ["PruningVectorEnv", "candidate_infos", "spread_infos"]

_Observations = NDArray[np.float32]


class PruningVectorEnv(VectorEnv[_Observations, NDArray[np.float32], NDArray[Any]]):
    """N episodes of `PruningEnv` in lock step.

    Autoreset is ``NEXT_STEP``: the step after the last one ignores its actions and returns the
    first observations of N new candidates, with rewards 0 and no infos. Infos are a dict of
    arrays with their ``_key`` masks.

    Args:
        problem: What is searched.
        num_envs: Number of episodes N.
    """

    metadata = {  # noqa: RUF012 (Gymnasium declares it so)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, problem: PruningProblem, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = observation_space(problem)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episodes = Episodes(problem, num_envs)
        self._over = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Observations, dict[str, Any]]:
        """Begin N new candidates; the environment has no randomness of its own."""
        self._over = False
        return self._episodes.reset(), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[_Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Decide the next group of every candidate; ``actions`` is float32 [N, 1] in [-1, 1]."""
        nothing = np.zeros(self.num_envs, dtype=np.bool_)
        if self._over:
            observations, infos = self.reset()
            return observations, np.zeros(self.num_envs), nothing, nothing.copy(), infos
        step = self._episodes.step(np.asarray(actions).reshape(self.num_envs))
        infos = candidate_infos(
            step.costs.astype(np.float32), self._episodes.candidates, step.outcome
        )
        self._over = step.outcome is not None
        over = np.full(self.num_envs, self._over)
        return step.observations, step.rewards, over, nothing, infos


def candidate_infos(
    costs: NDArray[np.float32], widths: NDArray[np.int64], outcome: Outcome | None
) -> dict[str, Any]:
    """Infos of N episodes as Gymnasium's vector environments give them.

    Args:
        costs: What became known of the costs at this step, float32 [N, B].
        widths: Values decided, int64 [N, G].
        outcome: How the candidates were judged; ``None`` before the last step, whose infos alone
            tell of widths and outcome.

    Returns:
        Arrays by name, each with its ``_name`` mask, bool [N].
    """
    infos: dict[str, Any] = {"costs": costs}
    if outcome is not None:
        infos["widths"] = widths
        infos["feasible"] = outcome.feasible
        infos["evaluation"] = _scalars(outcome)
    return infos | {f"_{key}": np.ones(len(costs), dtype=np.bool_) for key in infos}


def spread_infos(infos: dict[str, Any], at: NDArray[np.int64], count: int) -> dict[str, Any]:
    """Infos of some of N episodes as those of all: the others have none.

    Args:
        infos: Of M episodes, as `candidate_infos` gives them.
        at: Which episodes these are, int64 [M].
        count: The number of all, N.
    """
    spread: dict[str, Any] = {}
    for key, value in infos.items():
        if isinstance(value, dict):
            spread[key] = spread_infos(value, at, count)
        else:
            spread[key] = np.zeros((count, *value.shape[1:]), dtype=value.dtype)
            spread[key][at] = value
    return spread


def _scalars(outcome: Outcome) -> dict[str, NDArray[Any]]:
    rows = [candidate_scalars(outcome, index) for index in range(len(outcome.evaluations))]
    scalars: dict[str, NDArray[Any]] = {}
    for name in sorted({name for row in rows for name in row}):
        scalars[name] = np.array([row.get(name, np.nan) for row in rows])
        # A failed evaluation has no measures: the mask says whose number it is.
        scalars[f"_{name}"] = np.array([name in row for row in rows])
    return scalars
