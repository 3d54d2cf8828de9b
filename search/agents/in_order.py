"""Lagrangian PPO that decides in order: the policy walks the decisions of a candidate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
from ray.tune.registry import register_env

from ...envs.episodes import Episodes
from ...envs.judge import Judge
from ...envs.problem import Problem
from ...envs.vector_env import PruningVectorEnv
from ...errors import SpecError
from ..lagrangian import LagrangianPPO, LagrangianPPOConfig
from .agent import Agent, Iteration
from .ppo import (
    CHECKPOINT,
    PpoParameters,
    candidates_per_iteration,
    configured,
    draw,
    flat_figures,
    own_error,
)

__all__ = ["InOrderAgent"]

_ENVIRONMENT = "prunetune-in-order"
_CANDIDATES = 32
_DEFAULTS = PpoParameters()


class InOrderAgent(Agent):
    """Learns a policy that walks the decisions and sees which one it is at, and a price per budget.

    The environment is `PruningVectorEnv`: AMC's episode (He et al. 2018) with several budgets.

    Args:
        judge: Judges candidates.
        seed: Seeds the policy's weights and all sampling.
        evaluations: Candidates that it may ask for in all.
        parameters: See `PpoParameters`.

    Raises:
        SpecError: If a budget is a range.
    """

    name = "ppo-lagrangian-in-order"
    Parameters: type[Any] = PpoParameters

    def __init__(
        self,
        judge: Judge,
        seed: int,
        evaluations: int,
        parameters: PpoParameters = _DEFAULTS,
        *,
        shield: bool | None = None,
    ) -> None:
        super().__init__(judge, seed, evaluations)
        if len(self.problem.limits) > 1:
            raise SpecError(
                f"The agent {self.name!r} searches for a single limit; write one limit instead of "
                "a range, or take 'ppo-lagrangian'."
            )
        count = parameters.candidates or candidates_per_iteration(evaluations, _CANDIDATES)
        # More candidates than it may ask for would leave it without a single iteration.
        self.candidates = max(1, min(count, evaluations))
        problem = self.problem
        if shield is not None:
            problem = dataclasses.replace(problem, shield=shield)
        self._walked = problem
        self._algorithm = self._build(problem, parameters)

    def iterate(self, most: int) -> Iteration:
        """See `Agent.iterate`."""
        if most < self.candidates:
            return self._ask_rest(most)
        try:
            result = self._algorithm.train()
        except Exception as error:
            raise own_error(error) or error from None
        assert self.judge.last is not None
        return Iteration(*self.judge.last, flat_figures(result["lagrangian"]))

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        self._algorithm.save_to_path(folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        self._algorithm.restore_from_path(folder / CHECKPOINT)

    def stop(self) -> None:
        """See `Agent.stop`."""
        self._algorithm.stop()

    def _ask_rest(self, most: int) -> Iteration:
        """Ask for what is left of the search; nobody would use what could be learned from it."""
        if not most:
            return Iteration.nothing(self.problem)
        self._algorithm.seed_sampling()
        episodes = Episodes(self._walked, most, self.judge)
        observations = episodes.reset()
        outcome = None
        while outcome is None:
            drawn = draw(self._algorithm.env_runner.module, observations)
            step = episodes.step(drawn.clipped[:, 0])
            observations, outcome = step.observations, step.outcome
        return Iteration(episodes.candidates, outcome)

    def _build(self, problem: Problem, parameters: PpoParameters) -> LagrangianPPO:
        register_env(_ENVIRONMENT, _make_environment)
        length = len(problem.space)
        config = (
            LagrangianPPOConfig()
            .environment(_ENVIRONMENT, env_config={"problem": problem})
            .env_runners(
                num_env_runners=0,
                num_envs_per_env_runner=self.candidates,
                gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            )
        )
        algorithm: LagrangianPPO = configured(
            config,
            parameters,
            problem,
            seed=self.seed,
            steps=self.candidates * length,
            total=max(self.evaluations, 1) * length,
            relative=False,
        ).build_algo()
        # RLlib makes the environment from plain values; the judge is this process's own.
        algorithm.env_runner.env.unwrapped.attach(self.judge)
        return algorithm


def _make_environment(context: Any) -> PruningVectorEnv:
    return PruningVectorEnv(context["problem"], context["num_envs"])
