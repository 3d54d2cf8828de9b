"""AMC's way to keep budgets: PPO without constraints behind the shield."""

from __future__ import annotations

from ...envs.judge import Judge
from ...errors import SpecError
from .in_order import InOrderAgent
from .ppo import PolicyParameters, PpoParameters

__all__ = ["AmcAgent"]

_DEFAULTS = PolicyParameters()


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
        parameters: See `PolicyParameters`.

    Raises:
        SpecError: If a budget limits a cost that is known only after an evaluation.
    """

    name = "amc"
    Parameters = PolicyParameters

    def __init__(
        self,
        judge: Judge,
        seed: int,
        evaluations: int,
        parameters: PolicyParameters = _DEFAULTS,
    ) -> None:
        for cost in judge.problem.budgeted:
            if not cost.tabulated:
                raise SpecError(
                    f"The agent 'amc' keeps budgets by the shield alone, which cannot hold "
                    f"{cost.name}: it is known only after an evaluation; use 'ppo-lagrangian'."
                )
        policy = PpoParameters(**vars(parameters), multiplier_max=0.0)
        super().__init__(judge, seed, evaluations, policy, shield=True)
