"""AMC's way to keep budgets: PPO without constraints behind the shield."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...envs.problem import PruningProblem
from ...errors import SpecError
from ..engine.problem_spec import ProblemSpec
from .lagrangian import LagrangianAgent

__all__ = ["AmcAgent"]


class AmcAgent(LagrangianAgent):
    """Walks the groups and maximises the reward alone; the shield keeps the budgets.

    As in AMC (He et al. 2018, Algorithm 1) every action is narrowed so far that the budgets stay
    reachable, and nothing else tells the policy of them. The policy and its training are those of
    `LagrangianAgent` deciding in order, with multipliers that stay 0, instead of AMC's DDPG: what
    a comparison of the two shows is the way to keep budgets. Costs that are not tabulated cannot
    be shielded.

    Args:
        problem: What is searched.
        seed: Of the policy's weights and of all sampling.
        evaluations: Candidates that it may ask for in all.
        environment: The same problem as plain data, for env runners in other processes.
        candidates: Episodes of one iteration.
        env_runners: Processes that sample besides this one's own; 0 samples here.
        learning_rate: Of policy and critics.
        epochs: Passes over an iteration's steps.
        entropy: Weight of the policy's entropy.
        std: Standard deviation of actions that the policy starts with.
        final_std: What it may at most be at the end.
        hidden: Sizes of the hidden layers of policy and critics.

    Raises:
        SpecError: If a budget limits a cost that is known only after an evaluation.
    """

    name = "amc"
    follows_ranges = False

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        environment: ProblemSpec,
        *,
        candidates: int | None = None,
        env_runners: int = 0,
        learning_rate: float | None = None,
        epochs: int | None = None,
        entropy: float = 0.0,
        std: float = 0.3,
        final_std: float | None = None,
        hidden: Sequence[int] | None = None,
    ) -> None:
        for cost in problem.limited:
            if not cost.tabulated:
                raise SpecError(
                    f"The agent 'amc' keeps budgets by the shield alone, which cannot hold "
                    f"{cost.name}: it is known only after an evaluation; use 'ppo-lagrangian'."
                )
        super().__init__(
            dataclasses.replace(problem, shield=True),
            seed,
            evaluations,
            environment.model_copy(update={"shield": True}),
            decide="in-order",
            candidates=candidates,
            env_runners=env_runners,
            learning_rate=learning_rate,
            epochs=epochs,
            entropy=entropy,
            std=std,
            final_std=final_std,
            hidden=hidden,
            multiplier_max=0.0,
        )
