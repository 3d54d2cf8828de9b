"""AMC's way to keep budgets: PPO without constraints behind the shield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ...envs.judge import Judge
from ...errors import SpecError
from .in_order import InOrderAgent, InOrderParameters

__all__ = ["AmcAgent", "AmcParameters"]


@dataclass(frozen=True, kw_only=True)
class AmcParameters:
    """Parameters of `AmcAgent`; they mean what they do in `PpoParameters`.

    Attributes:
        candidates: Candidates of one iteration.
        learning_rate: Learning rate of policy and critics.
        epochs: Passes over the steps of an iteration.
        entropy: Weight of the policy's entropy.
        std: Standard deviation of actions that the policy starts with.
        final_std: What that may be at most in the end.
        hidden: Sizes of the hidden layers of policy and critics.
    """

    candidates: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    epochs: Annotated[int, Field(ge=1)] = 10
    entropy: Annotated[float, Field(ge=0)] = 0.0
    std: Annotated[float, Field(gt=0)] = 0.3
    final_std: Annotated[float, Field(gt=0)] = 0.1
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64)


class AmcAgent(InOrderAgent):
    """Walks the decisions and maximises the reward alone; the shield keeps the budgets.

    As in AMC (He et al. 2018, Algorithm 1) every action is lowered so far that the budgets stay
    reachable, and nothing else tells the policy of them. The policy and its training are those of
    `InOrderAgent`, with multipliers that stay 0, instead of AMC's DDPG: what a comparison of the
    two shows is the way to keep budgets. Costs that are not tabulated cannot be shielded.

    Args:
        judge: Judges candidates.
        seed: Seeds the policy's weights and all sampling.
        evaluations: Candidates that it may ask for in all.
        parameters: See `AmcParameters`.

    Raises:
        SpecError: If a budget limits a cost that is known only after an evaluation.
    """

    name = "amc"
    Parameters = AmcParameters

    def __init__(
        self,
        judge: Judge,
        seed: int,
        evaluations: int,
        parameters: AmcParameters = AmcParameters(),
    ) -> None:
        for cost in judge.problem.budgeted:
            if not cost.tabulated:
                raise SpecError(
                    f"The agent 'amc' keeps budgets by the shield alone, which cannot hold "
                    f"{cost.name}: it is known only after an evaluation; use 'ppo-lagrangian'."
                )
        policy = InOrderParameters(**vars(parameters), multiplier_max=0.0)
        super().__init__(judge, seed, evaluations, policy, shield=True)
