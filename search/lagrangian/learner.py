"""The learner: PPO's loss on the advantage of the Lagrangian, and the multipliers' home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import Tensor

from ..._compat import learner_connector, learner_device
from .connectors import COST_VALUE_TARGETS, ConstrainedAdvantages, CostsFromInfos
from .multipliers import Multipliers

__all__ = ["LagrangianLearner"]

_COMPONENT = "lagrangian"
# Distance of a normal distribution's quartiles, in standard deviations.
_NORMAL_QUARTILES = 1.349


class LagrangianLearner(PPOTorchLearner):
    """A PPO learner with multipliers, cost critics, and all of its state in checkpoints.

    Multipliers and KL coefficients move only when the driver says so, by numbers that are the
    same for all learners: what a learner works out from its own share of the batch would drift
    apart between learners, and only the first one's would be checkpointed.
    """

    def build(self) -> None:
        """Build networks, optimisers, and the connectors that turn infos into advantages."""
        super().build()
        for optimizer in self._named_optimizers.values():
            self._set_optimizer_lr(optimizer, self._get_optimizer_lr(optimizer))
        self.multipliers = Multipliers(self.config.get_constraints())
        self._contexts = int(self.config.contexts)
        self._reward_scales = np.full(self._contexts, np.nan)
        self._timestep = 0
        self._max_std = Scheduler(
            fixed_value_or_schedule=self.config.max_std,
            framework=self.framework,
            device=learner_device(self),
        )
        connector = learner_connector(self)
        connector.insert_after(
            AddOneTsToEpisodesAndTruncate,
            CostsFromInfos(count=len(self.config.limits), contexts=self._contexts),
        )
        connector.append(
            ConstrainedAdvantages(
                multipliers=lambda: self.multipliers.values.reshape(self._contexts, -1),
                scale=lambda: np.nan_to_num(self._reward_scales, nan=1.0),
                gamma=self.config.cost_gamma,
                lambda_=self.config.cost_lambda,
                normalise=self.config.normalise_advantages,
            )
        )

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: PPOConfig,
        batch: dict[str, Any],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        """PPO's loss plus the squared error of the cost critics."""
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        module = self.module[module_id].unwrapped()
        mask = batch[Columns.LOSS_MASK]
        error = module.compute_cost_values(batch) - batch[COST_VALUE_TARGETS]
        cost_vf_loss = error[mask].square().sum(dim=-1).mean()
        self.metrics.log_value((module_id, "cost_vf_loss"), cost_vf_loss.detach(), window=1)
        return loss + config.cost_vf_loss_coeff * cost_vf_loss

    def update_multipliers(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move the multipliers by the episode costs [K x B] of the whole batch."""
        return self.multipliers.update(costs)

    def set_reward_scale(self, returns: NDArray[np.float64], contexts: NDArray[np.int64]) -> None:
        """Take the spread of the first batch whose returns differ as the unit of rewards.

        The distance of the quartiles, as a robust standard deviation: one candidate that is
        broken must not make all others look alike. It stays, since it is what multipliers are
        prices in; every context has its own.

        Args:
            returns: Of episodes, float64 [N].
            contexts: Theirs, int64 [N].
        """
        for context in np.unique(contexts):
            quartiles = np.percentile(returns[contexts == context], [75, 25])
            spread = float(np.subtract(*quartiles)) / _NORMAL_QUARTILES
            if np.isnan(self._reward_scales[context]) and spread > 0 and np.isfinite(spread):
                self._reward_scales[context] = spread

    def update_kl_coefficients(self, divergence: Mapping[str, float]) -> dict[str, float]:
        """Adapt PPO's KL coefficients to the mean divergence over all learners.

        Args:
            divergence: Mean KL divergence by module; not finite moves nothing.

        Returns:
            The coefficients by module.
        """
        coefficients = {}
        for module_id, mean in divergence.items():
            config = self.config.get_config_for_module(module_id)
            variable = self.curr_kl_coeffs_per_module[module_id]
            if mean > 2.0 * config.kl_target:
                variable.data *= 1.5
            elif mean < 0.5 * config.kl_target:
                variable.data *= 0.5
            coefficients[module_id] = float(variable)
        return coefficients

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move the schedules, and remember where they stand."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._timestep = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        bound = float(self._max_std.update(timestep=self._timestep))
        for module_id in self.module.keys():
            self.module[module_id].unwrapped().bound_std(bound)

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """RLlib's state and ours: multipliers, reward scale, KL coefficients, schedules."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_COMPONENT, components, not_components):
            state[_COMPONENT] = {
                "multipliers": self.multipliers.get_state(),
                "reward_scales": self._reward_scales.copy(),
                "kl_coefficients": {
                    module_id: float(self.curr_kl_coeffs_per_module[module_id])
                    for module_id in self.module.keys()
                },
                "timestep": self._timestep,
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what :meth:`get_state` returned."""
        super().set_state(state)
        ours = state.get(_COMPONENT)
        if ours is None:
            return
        self.multipliers.set_state(ours["multipliers"])
        self._reward_scales = np.array(ours["reward_scales"], dtype=np.float64)
        for module_id, value in ours["kl_coefficients"].items():
            variable = self.curr_kl_coeffs_per_module[module_id]
            variable.data = torch.full_like(variable.data, value)
        self._timestep = ours["timestep"]
        if self._timestep:
            # Without this the first update after a restore would use the schedule's first value.
            for module_id in ours["kl_coefficients"]:
                self.entropy_coeff_schedulers_per_module[module_id].update(timestep=self._timestep)

    @staticmethod
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Set the learning rate as a plain number.

        RLlib keeps that of a schedule as a tensor, checkpoints it as a number, and PyTorch's
        optimisers round differently with the two: a restored search would drift from the first.
        """
        for group in optimizer.param_groups:
            group["lr"] = float(lr)

    def _update_module_kl_coeff(self, **kwargs: Any) -> None:
        """Nothing: see :meth:`update_kl_coefficients`."""
