"""The settings of Lagrangian PPO: constraints, multipliers and exploration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, cast

from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from typing_extensions import Self

from .learner import LagrangianLearner
from .module import LagrangianCatalog, LagrangianModule
from .multipliers import Constraints, PidGains, Rule

__all__ = ["ConstrainedSettings"]


class ConstrainedSettings(PPOConfig):
    """What `LagrangianPPOConfig` adds to RLlib's ``PPOConfig``; it does not know its algorithm.

    Defaults suit short episodes (5-60 steps) of which 16-32 run in parallel, for tens of
    iterations; everything of ``PPOConfig`` can be set as usual.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.limits: list[float] = []
        self.cost_names: list[str] | None = None
        self.contexts = 1
        self.multiplier_rule: Rule = "lagrange"
        self.multiplier_learning_rate = 1.0
        self.multiplier_damping = 5.0
        self.multiplier_pid: dict[str, float] = asdict(PidGains())
        self.multiplier_max = 100.0
        self.initial_multipliers: list[float] | None = None
        self.cost_window = 1
        self.cost_deviations = 0.0
        self.cost_margin = 0.0
        self.cost_gamma = 1.0
        self.cost_lambda = 1.0
        self.cost_vf_loss_coeff = 1.0
        self.normalise_advantages = "combined"
        self.initial_std = 0.3
        self.max_std: float | list[list[float]] = float("inf")
        self.initial_output_scale = 0.01

        self.batch_mode = "complete_episodes"
        self.sample_timeout_s = None
        self.num_env_runners = 0
        self.gamma = 1.0
        self.lambda_ = 1.0
        self.lr = 3e-3
        self.num_epochs = 10
        self.minibatch_size = 128
        self.clip_param = 0.2
        self.vf_clip_param = float("inf")
        self.use_kl_loss = False

    def constraints(
        self,
        *,
        limits: Sequence[float] = NotProvided,
        names: Sequence[str] = NotProvided,
        contexts: int = NotProvided,
        rule: Rule = NotProvided,
        multiplier_learning_rate: float = NotProvided,
        multiplier_damping: float = NotProvided,
        pid: PidGains = NotProvided,
        multiplier_max: float = NotProvided,
        initial_multipliers: Sequence[float] = NotProvided,
        window: int = NotProvided,
        deviations: float = NotProvided,
        margin: float = NotProvided,
        cost_gamma: float = NotProvided,
        cost_lambda: float = NotProvided,
        cost_vf_loss_coeff: float = NotProvided,
        normalise_advantages: Literal["reward", "combined", "ranked"] = NotProvided,
    ) -> Self:
        """Sets what is constrained and how the multipliers move.

        Args:
            limits: Largest admissible mean undiscounted episode cost, one per cost.
            names: Names of the costs in results; "0", "1", ... by default.
            contexts: Number K of contexts. An environment whose episodes differ in what they may
                spend reports which of K cases an episode is, as ``info["context"]`` from 0 to
                K - 1, and its costs as shares of that limit. Every context has multipliers of its
                own, and its episodes are compared with each other only. An iteration in which a
                context has no finished episode moves no multiplier.
            rule: "lagrange" (projected gradient) or "pid" (Stooke et al. 2020).
            multiplier_learning_rate: Step of "lagrange".
            multiplier_damping: Damping of "lagrange"; 0 is the plain projected gradient.
            pid: Gains of "pid".
            multiplier_max: Largest value of a multiplier.
            initial_multipliers: One per cost; 0 by default.
            window: Iterations over whose mean cost the multipliers move.
            deviations: The multipliers hold the mean cost plus so many standard deviations of the
                episodes' costs at the limit: 0 constrains the mean alone, which half of all
                episodes exceed, and 1.28 lets about 90 % of them keep the limit; see
                `held_costs`.
            margin: Share of every limit that the multipliers leave free, in [0, 1): they move
                after the costs do, and a policy that narrows fast is ahead of them (our choice).
            cost_gamma: Discount of the cost critics.
            cost_lambda: GAE parameter of the cost critics.
            cost_vf_loss_coeff: Weight of the cost critics' loss.
            normalise_advantages: "combined", "reward" or "ranked", see
                `combine_advantages`.

        Returns:
            This config.
        """
        given: dict[str, Any] = {
            "limits": limits,
            "cost_names": names,
            "contexts": contexts,
            "multiplier_rule": rule,
            "multiplier_learning_rate": multiplier_learning_rate,
            "multiplier_damping": multiplier_damping,
            "multiplier_pid": asdict(pid) if pid is not NotProvided else pid,
            "multiplier_max": multiplier_max,
            "initial_multipliers": initial_multipliers,
            "cost_window": window,
            "cost_deviations": deviations,
            "cost_margin": margin,
            "cost_gamma": cost_gamma,
            "cost_lambda": cost_lambda,
            "cost_vf_loss_coeff": cost_vf_loss_coeff,
            "normalise_advantages": normalise_advantages,
        }
        for name, value in given.items():
            if value is not NotProvided:
                sequence = isinstance(value, Sequence) and not isinstance(value, str)
                setattr(self, name, list(value) if sequence else value)
        return self

    def exploration(
        self,
        *,
        std: float = NotProvided,
        max_std: float | list[list[float]] = NotProvided,
        output_scale: float = NotProvided,
    ) -> Self:
        """Sets how the policy starts, and how far it may explore.

        Args:
            std: Initial standard deviation of a Gaussian policy, which learns one per action
                dimension, whatever the state.
            max_std: Upper bound on that standard deviation, a number or a schedule
                ``[[0, bound], [environment steps, bound], ...]`` with linear interpolation. A
                falling bound makes the last candidates of a short search keep close to the mean.
            output_scale: Factor on the initial weights of the policy's last layer, whose biases
                are 0: small means that the mean starts near 0 in every state.

        Returns:
            This config.
        """
        if std is not NotProvided:
            self.initial_std = std
        if max_std is not NotProvided:
            self.max_std = max_std
        if output_scale is not NotProvided:
            self.initial_output_scale = output_scale
        return self

    def get_constraints(self) -> Constraints:
        """The constraints as one object, those of every context after those of the one before.

        Raises:
            ValueError: If they make no sense.
        """
        if self.contexts < 1:
            raise ValueError("contexts must be at least 1")
        names = self.cost_names or [str(number) for number in range(len(self.limits))]
        if self.contexts > 1:
            names = [f"{name}@{context}" for context in range(self.contexts) for name in names]
        held = tuple(float(limit) * (1.0 - self.cost_margin) for limit in self.limits)
        return Constraints(
            limits=held * self.contexts,
            names=tuple(names),
            rule=self.multiplier_rule,
            learning_rate=self.multiplier_learning_rate,
            damping=self.multiplier_damping,
            pid=PidGains(**cast("dict[str, Any]", self.multiplier_pid)),
            initial=tuple(self.initial_multipliers or ()) * self.contexts,
            maximum=self.multiplier_max,
            window=self.cost_window,
        )

    def validate(self) -> None:
        """Checks all settings."""
        super().validate()
        self.get_constraints()
        if self.batch_mode != "complete_episodes":
            raise ValueError("LagrangianPPO needs batch_mode='complete_episodes'")
        if self.normalise_advantages not in ("reward", "combined", "ranked"):
            raise ValueError("normalise_advantages must be 'reward', 'combined' or 'ranked'")
        if self.cost_deviations < 0:
            raise ValueError("deviations must not be negative")
        if not 0 <= self.cost_margin < 1:
            raise ValueError("margin must be in [0, 1)")
        bounds = [b for _, b in self.max_std] if isinstance(self.max_std, list) else [self.max_std]
        if not min(self.initial_std, *bounds) > 0:
            raise ValueError("the standard deviation and its bounds must be above 0")

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module with cost critics."""
        return RLModuleSpec(module_class=LagrangianModule, catalog_class=LagrangianCatalog)

    def get_default_learner_class(self) -> type[LagrangianLearner]:
        """The learner with multipliers."""
        return LagrangianLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            "num_costs": len(self.limits),
            "initial_std": self.initial_std,
            "initial_output_scale": self.initial_output_scale,
            "free_log_std": "auto",
            "fcnet_hiddens": [64, 64],
        }
