"""What agents whose policy is trained by Lagrangian PPO share: parameters and the algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from ray.rllib.core.columns import Columns

from ...envs.problem import Problem
from ...errors import PruneTuneError
from ..lagrangian import LagrangianPPOConfig

__all__ = [
    "CHECKPOINT",
    "Advantages",
    "Drawn",
    "PolicyParameters",
    "PpoParameters",
    "candidates_per_iteration",
    "configured",
    "draw",
    "flat_figures",
    "own_error",
]

Advantages = Literal["reward", "combined", "ranked"]
Rule = Literal["lagrange", "pid"]

CHECKPOINT = "lagrangian-ppo"
"""Folder of RLlib's checkpoint inside a trial's."""

_ITERATIONS = 8


@dataclass(frozen=True, kw_only=True)
class PolicyParameters:
    """Parameters of a policy that PPO trains.

    docs/research/agents.md has the figures that decided the defaults.

    Attributes:
        candidates: Candidates that are evaluated in one iteration; when left out, a divisor of
            the search's evaluations near the agent's own number.
        learning_rate: Learning rate of policy and critics.
        epochs: Passes over the steps of an iteration.
        minibatch_size: Steps of one update.
        clip: PPO's bound on the ratio of new to old probability, as a distance from 1.
        entropy: Weight of the policy's entropy.
        std: Standard deviation of actions that the policy starts with.
        final_std: What that may be at most in the end; the bound falls linearly from ``std``.
        hidden: Sizes of the hidden layers of policy and critics.
    """

    candidates: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    epochs: Annotated[int, Field(ge=1)] = 10
    minibatch_size: Annotated[int, Field(ge=1)] = 128
    clip: Annotated[float, Field(gt=0)] = 0.2
    entropy: Annotated[float, Field(ge=0)] = 0.0
    std: Annotated[float, Field(gt=0)] = 0.3
    final_std: Annotated[float, Field(gt=0)] = 0.1
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64)


@dataclass(frozen=True, kw_only=True)
class PpoParameters(PolicyParameters):
    """Parameters of a policy and of the prices that it pays.

    Attributes:
        advantages: What of them is normalised, ``reward``, ``combined`` or ``ranked``; see
            `combine_advantages`.
        multiplier_rule: How the multipliers move, ``lagrange`` or ``pid``.
        multiplier_learning_rate: Step of ``lagrange``.
        multiplier_damping: Damping of ``lagrange``.
        multiplier_max: Largest value of a multiplier.
        deviations: The mean cost plus so many standard deviations of the costs is held at the
            limit, so that most candidates keep it and not only their mean.
        margin: Share of every limit that the multipliers leave free.
    """

    advantages: Advantages = "combined"
    multiplier_rule: Rule = "lagrange"
    multiplier_learning_rate: Annotated[float, Field(ge=0)] = 1.0
    multiplier_damping: Annotated[float, Field(ge=0)] = 5.0
    multiplier_max: Annotated[float, Field(ge=0)] = 100.0
    deviations: Annotated[float, Field(ge=0)] = 1.0
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0


def configured(
    config: LagrangianPPOConfig,
    parameters: PpoParameters,
    problem: Problem,
    *,
    seed: int,
    steps: int,
    total: int,
    relative: bool,
) -> LagrangianPPOConfig:
    """Set what agents have in common.

    Args:
        config: With its environment and env runners; it is changed.
        parameters: The parameters of the agent.
        problem: What is searched.
        seed: Seeds the policy's weights and all sampling.
        steps: Environment steps of one iteration.
        total: Environment steps of the whole search, at which schedules end.
        relative: Whether costs are shares of their limits, and the learning rate falls with the
            bound on the standard deviation, so that steps stay in proportion to what is explored.
    """
    rate = parameters.learning_rate
    final = min(parameters.std, parameters.final_std)
    return (
        config.training(
            train_batch_size_per_learner=steps,
            minibatch_size=min(parameters.minibatch_size, steps),
            lr=[[0, rate], [total, rate * final / parameters.std]] if relative else rate,
            num_epochs=parameters.epochs,
            clip_param=parameters.clip,
            entropy_coeff=parameters.entropy,
        )
        .rl_module(model_config={"fcnet_hiddens": list(parameters.hidden)})
        .constraints(
            limits=[1.0 if relative else budget.limit for budget in problem.budgets],
            names=[budget.cost for budget in problem.budgets],
            contexts=len(problem.limits),
            rule=parameters.multiplier_rule,
            multiplier_learning_rate=parameters.multiplier_learning_rate,
            multiplier_damping=parameters.multiplier_damping,
            multiplier_max=parameters.multiplier_max,
            deviations=parameters.deviations,
            margin=parameters.margin,
            normalise_advantages=parameters.advantages,
        )
        .exploration(std=parameters.std, max_std=[[0, parameters.std], [total, final]])
        .debugging(seed=seed, log_level="ERROR")
    )


def candidates_per_iteration(evaluations: int, about: int = 32) -> int:
    """How many candidates to ask for at a time, so that ``evaluations`` are used up.

    Args:
        evaluations: At least 1.
        about: The number wished for; fewer where that would leave less than 8 iterations.

    Returns:
        The divisor of ``evaluations`` nearest to ``about`` between 3/4 and 5/4 of it; where there
        is none, the number in that range that leaves the fewest for a last, shorter iteration,
        which nothing is learned from.
    """
    # Without several iterations nothing is learned at all.
    about = max(1, min(about, evaluations // _ITERATIONS))
    choices = range(max(1, about * 3 // 4), max(1, about * 5 // 4) + 1)
    return min(choices, key=lambda count: (evaluations % count, abs(count - about)))


@dataclass(frozen=True)
class Drawn:
    """Actions that an exploring policy drew.

    Attributes:
        actions: As they were drawn, float32 [N, A]; an environment sees them clipped to [-1, 1].
        logp: Their log-probabilities, float32 [N].
        inputs: What the distributions were made of, float32 [N, 2 A].
    """

    actions: NDArray[np.float32]
    logp: NDArray[np.float32]
    inputs: NDArray[np.float32]

    @property
    def clipped(self) -> NDArray[np.float64]:
        """The actions in [-1, 1], float64 [N, A]."""
        return np.clip(self.actions.astype(np.float64), -1.0, 1.0)


@torch.no_grad()
def draw(module: Any, observations: NDArray[np.float32]) -> Drawn:
    """Let a policy explore, by the process's own random numbers.

    Args:
        module: RLlib's module of the policy.
        observations: float32 [N, O].
    """
    # Not from_numpy: some processors round by where numbers lie, and NumPy aligns them less.
    outputs = module.forward_exploration({Columns.OBS: torch.tensor(observations)})
    inputs = outputs[Columns.ACTION_DIST_INPUTS]
    distribution = module.get_exploration_action_dist_cls().from_logits(inputs)
    actions = distribution.sample()
    return Drawn(actions.numpy(), distribution.logp(actions).numpy(), inputs.numpy())


def own_error(error: BaseException) -> PruneTuneError | None:
    """The error of ours that RLlib or Ray wrapped, if it is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PruneTuneError):
            return seen
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__ or seen.__context__
    return None


def flat_figures(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested results of RLlib as one mapping, with ``/`` between the names."""
    figures: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            figures |= flat_figures(value, f"{prefix}{name}/")
        else:
            figures[prefix + name] = float(value)
    return figures
