"""From the costs in an environment's infos to the advantages that PPO follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets
from scipy.stats import rankdata

from ...errors import EvaluationError

__all__ = [
    "CONTEXTS",
    "COSTS",
    "COST_VALUE_TARGETS",
    "ConstrainedAdvantages",
    "CostsFromInfos",
    "combine_advantages",
    "cost_value_targets",
    "episode_context",
    "rank_utilities",
    "step_costs",
]

COSTS = "costs"
CONTEXTS = "contexts"
COST_VALUE_TARGETS = "cost_value_targets"


def step_costs(episode: SingleAgentEpisode, count: int, steps: int) -> NDArray[np.float32]:
    """The costs of the first transitions of an episode.

    Args:
        episode: An episode whose infos have ``costs`` (a vector) or ``cost`` (a number).
        count: Number of costs B.
        steps: Number of transitions n.

    Returns:
        float32 [n, B]; row t is the cost of the transition from step t.

    Raises:
        EvaluationError: If an info has no such costs or they are not finite.
    """
    # The info at index 0 belongs to the reset: transition t reports in info t + 1.
    infos = episode.get_infos(slice(1, steps + 1))
    costs = np.empty((steps, count), dtype=np.float32)
    for step, info in enumerate(infos):
        value = info.get("costs", info.get("cost"))
        row = None if value is None else np.asarray(value, dtype=np.float32).reshape(-1)
        if row is None or len(row) != count or not np.isfinite(row).all():
            raise EvaluationError(
                f"The environment must report {count} finite cost(s) in info['costs'] (or one in "
                f"info['cost']) at every step, but step {step} reported {value!r}."
            )
        costs[step] = row
    return costs


def episode_context(episode: SingleAgentEpisode, contexts: int) -> int:
    """The context of an episode, in which its limits and multipliers are.

    Args:
        episode: An episode whose last info has ``context``; without it the context is 0.
        contexts: Number of contexts K.

    Raises:
        EvaluationError: If it is not an integer from 0 to K - 1.
    """
    value = episode.get_infos(-1).get("context", 0)
    if not isinstance(value, (int, np.integer)) or not 0 <= value < contexts:
        raise EvaluationError(
            f"The environment must report a context from 0 to {contexts - 1} in info['context'], "
            f"but it reported {value!r}."
        )
    return int(value)


class CostsFromInfos(ConnectorV2):
    """Writes the columns ``costs`` and ``contexts``, one row per transition.

    The row of the bootstrap step has the cost 0. Must run after RLlib has made every episode one
    step longer and before it batches.

    Args:
        count: Number of costs.
        contexts: Number of contexts.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        count: int,
        contexts: int = 1,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._count = count
        self._contexts = contexts

    def __call__(
        self, *, batch: dict[str, Any], episodes: Sequence[SingleAgentEpisode], **kwargs: Any
    ) -> Any:
        """Add the columns for all episodes."""
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            length = len(episode)
            costs = np.zeros((length, self._count), dtype=np.float32)
            costs[:-1] = step_costs(episode, self._count, length - 1)
            self.add_n_batch_items(batch, COSTS, costs, length, episode)
            context = episode_context(episode, self._contexts)
            contexts = np.full(length, context, dtype=np.int64)
            self.add_n_batch_items(batch, CONTEXTS, contexts, length, episode)
        return batch


class ConstrainedAdvantages(ConnectorV2):
    """Cost advantages by GAE, and the advantage of the Lagrangian in place of the reward's.

    Must run after RLlib's own ``GeneralAdvantageEstimation``, on the batched tensors. Episodes are
    compared with those of their own context only.

    Args:
        multipliers: Returns the present multipliers, float64 [K, B].
        scale: Returns the spread of rewards that ``ranked`` measures advantages in, float64 [K].
        gamma: Discount of costs; 1 because a budget limits an undiscounted total.
        lambda_: GAE parameter of costs.
        normalise: See :func:`combine_advantages`.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        multipliers: Callable[[], NDArray[np.float64]],
        scale: Callable[[], NDArray[np.float64]],
        gamma: float,
        lambda_: float,
        normalise: str,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._multipliers = multipliers
        self._scale = scale
        self._gamma = gamma
        self._lambda = lambda_
        self._normalise = normalise

    def __call__(self, *, rl_module: MultiRLModule, batch: dict[str, Any], **kwargs: Any) -> Any:
        """Replace the advantages of every module and add its cost value targets."""
        for module_id, columns in batch.items():
            module = rl_module[module_id].unwrapped()
            with torch.no_grad():
                values = module.compute_values(columns)
                cost_values = module.compute_cost_values(columns).cpu().numpy()
            targets = cost_value_targets(
                cost_values,
                columns[COSTS].cpu().numpy(),
                columns[Columns.TERMINATEDS].cpu().numpy(),
                columns[Columns.TRUNCATEDS].cpu().numpy(),
                self._gamma,
                self._lambda,
            )
            rewards = (columns[Postprocessing.VALUE_TARGETS] - values).cpu().numpy()
            mask = columns[Columns.LOSS_MASK].cpu().numpy()
            contexts = columns[CONTEXTS].cpu().numpy()
            multipliers, scale = self._multipliers(), self._scale()
            advantages = np.zeros(len(rewards), dtype=np.float32)
            for context in np.unique(contexts[mask]):
                rows = contexts == context
                advantages[rows] = combine_advantages(
                    rewards[rows],
                    (targets - cost_values)[rows],
                    mask[rows],
                    multipliers[context],
                    self._normalise,
                    float(scale[context]),
                )
            device = values.device
            columns[COST_VALUE_TARGETS] = torch.from_numpy(targets).to(device)
            columns[Postprocessing.ADVANTAGES] = torch.from_numpy(advantages).to(device)
        return batch


def cost_value_targets(
    values: NDArray[np.float32],
    costs: NDArray[np.float32],
    terminateds: NDArray[np.bool_],
    truncateds: NDArray[np.bool_],
    gamma: float,
    lambda_: float,
) -> NDArray[np.float32]:
    """GAE targets of every cost; advantages are the targets minus the values.

    Args:
        values: Predictions of the cost critic, [rows, B], bootstrap rows included.
        costs: Costs of the transitions, [rows, B].
        terminateds: Whether the transition ended its episode, [rows].
        truncateds: Whether the transition is the last of an unfinished episode, [rows].
        gamma: Discount.
        lambda_: GAE parameter.

    Returns:
        float32 [rows, B].
    """
    columns = [
        compute_value_targets(
            values=values[:, index],
            rewards=costs[:, index],
            terminateds=terminateds.astype(np.float32),
            truncateds=truncateds.astype(np.float32),
            gamma=gamma,
            lambda_=lambda_,
        )
        for index in range(costs.shape[1])
    ]
    return np.stack(columns, axis=1)


def combine_advantages(
    rewards: NDArray[np.float32],
    costs: NDArray[np.float32],
    mask: NDArray[np.bool_],
    multipliers: NDArray[np.float64],
    normalise: str,
    scale: float = 1.0,
) -> NDArray[np.float32]:
    """The advantage of the Lagrangian, (A_r - sum_i lambda_i A_ci) / (1 + sum_i lambda_i).

    Cost advantages are centred and never scaled. ``normalise`` says what is standardised:
    ``reward``, the reward advantage alone (Ray et al. 2019; OmniSafe), which makes a multiplier
    the price of a cost in standard deviations of the reward advantage; or ``combined``, the sum
    (our choice), which makes it the price in units of the reward, so that it need not grow as
    the policy narrows. ``ranked`` is ``combined`` with the sum replaced by its rank among the
    batch (see :func:`rank_utilities`), so that neither a difference of 0.1 points nor a hopeless
    candidate weighs more or less for its size; a multiplier is the price in units of ``scale``.

    Args:
        rewards: Advantages of the reward, not normalised, [rows].
        costs: Advantages of the costs, [rows, B].
        mask: False for bootstrap rows, which must not enter any mean, [rows].
        multipliers: [B].
        normalise: ``reward``, ``combined`` or ``ranked``.
        scale: What ``ranked`` divides the reward advantage by, above 0.

    Returns:
        float32 [rows].
    """
    reward = rewards.astype(np.float64) - rewards[mask].mean(dtype=np.float64)
    if normalise == "reward":
        reward /= _spread(reward[mask])
    if normalise == "ranked":
        reward /= scale
    centred = costs.astype(np.float64) - costs[mask].mean(axis=0, dtype=np.float64)
    combined = (reward - centred @ multipliers) / (1.0 + multipliers.sum())
    if normalise == "combined":
        combined /= _spread(combined[mask])
    if normalise == "ranked":
        combined[mask] = rank_utilities(combined[mask])
        combined[~mask] = 0.0
    return combined.astype(np.float32)


def rank_utilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Utilities of ranks, as evolution strategies use them: the better half counts, the best most.

    A rank k of n, 1 the best, is worth max(0, ln(n / 2 + 1) - ln k) (Hansen & Ostermeier 2001;
    fitness shaping of Wierstra et al. 2014), here standardised. Equal values share their mean rank.

    Args:
        values: Higher is better, [n].

    Returns:
        Mean 0 and standard deviation 1, or all 0 where all values are equal; float64 [n].
    """
    rank = rankdata(-values)
    utility = np.maximum(0.0, np.log(len(values) / 2 + 1) - np.log(rank))
    utility -= utility.mean()
    return np.asarray(utility / _spread(utility))


def _spread(values: NDArray[np.float64]) -> float:
    # A batch of equal candidates has no direction to follow; do not blow up rounding errors.
    return max(1e-8, float(values.std()))
