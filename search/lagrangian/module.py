"""The policy, its critic, and one critic per cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.models.base import ENCODER_OUT, Model
from ray.rllib.core.models.configs import MLPHeadConfig, RecurrentEncoderConfig
from torch import Tensor, nn

__all__ = ["LagrangianCatalog", "LagrangianModule"]


class LagrangianCatalog(PPOCatalog):
    """PPO's catalog; a Gaussian policy gets a standard deviation that is free of the state."""

    def build_pi_head(self, framework: str) -> Model:
        """The policy head, started as the model config says."""
        settings = self._model_config_dict
        gaussian = self.get_action_dist_cls(framework=framework) is TorchDiagGaussian
        if settings["free_log_std"] == "auto":
            settings["free_log_std"] = gaussian
        head = super().build_pi_head(framework)
        last = [layer for layer in head.net.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(settings["initial_output_scale"])
            last.bias.zero_()
            if gaussian and settings["free_log_std"]:
                head.log_std.fill_(math.log(settings["initial_std"]))
        return head


class LagrangianModule(DefaultPPOTorchRLModule):
    """PPO's default module with a cost critic of its own encoder and one output per cost."""

    def setup(self) -> None:
        """Build all networks.

        Raises:
            ValueError: If observations are not arrays of floats, or the model is recurrent.
        """
        _check_observations(self.observation_space)
        super().setup()
        encoder_config = self.catalog.actor_critic_encoder_config.base_encoder_config
        if isinstance(encoder_config, RecurrentEncoderConfig):
            raise ValueError("LagrangianPPO does not support recurrent models")
        if self.inference_only:
            return
        self.cost_encoder = encoder_config.build(framework=self.framework)
        self.cost_vf = MLPHeadConfig(
            input_dims=self.catalog.latent_dims,
            hidden_layer_dims=self.catalog.pi_and_vf_head_hiddens,
            hidden_layer_activation=self.catalog.pi_and_vf_head_activation,
            output_layer_activation="linear",
            output_layer_dim=self.model_config["num_costs"],
        ).build(framework=self.framework)

    def compute_cost_values(self, batch: dict[str, Any]) -> Tensor:
        """Predicted cost to come of every cost, [rows, B]."""
        return self.cost_vf(self.cost_encoder(batch)[ENCODER_OUT])

    def bound_std(self, bound: float) -> None:
        """Hold the standard deviation of a Gaussian policy at ``bound`` or below."""
        log_std = getattr(self.pi, "log_std", None)
        if log_std is not None:
            with torch.no_grad():
                log_std.clamp_(max=math.log(bound))

    def get_non_inference_attributes(self) -> list[str]:
        """What environment runners do not need."""
        return [*super().get_non_inference_attributes(), "cost_encoder", "cost_vf"]


def _check_observations(space: Any) -> None:
    """Refuse what RLlib's encoders cannot read, with what makes it readable."""
    if not isinstance(space, Box):
        raise ValueError(
            f"LagrangianPPO observes arrays of floats, not {type(space).__name__}; add RLlib's "
            "FlattenObservations to the env runners, as for RLlib's PPO: "
            ".env_runners(env_to_module_connector=lambda *_, **__: FlattenObservations())."
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"LagrangianPPO observes floats, not {space.dtype}; wrap the environment so that it "
            "gives float32, such as images divided by 255."
        )
