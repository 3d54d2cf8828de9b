"""Lagrangian PPO as an agent: RLlib's algorithm over the vectorised pruning environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from ...envs.problem import PruningProblem
from ...envs.vector_env import PruningVectorEnv
from ...errors import PruneTuneError
from ...rewards.evaluation import Evaluation
from ..lagrangian import LagrangianPPO, LagrangianPPOConfig
from ..problem_spec import ProblemSpec
from .agent import Agent, Iteration

__all__ = ["LagrangianAgent", "candidates_per_iteration"]

_ENVIRONMENT = "prunetune-pruning"
_CHECKPOINT = "lagrangian-ppo"

_ITERATIONS = 8


class _RememberingPPO(LagrangianPPO):
    """Keeps the episodes of the last iteration, wherever they were sampled."""

    sampled: Sequence[SingleAgentEpisode] = ()

    def _sample(self) -> list[SingleAgentEpisode]:
        episodes = super()._sample()
        self.sampled = episodes
        return episodes


class LagrangianAgent(Agent):
    """Learns a policy that decides group by group, and a price for every budget.

    Args:
        problem: What is searched.
        seed: Of the policy's weights and of all sampling.
        evaluations: Candidates that it may ask for in all.
        environment: The same problem as plain data, for env runners in other processes.
        candidates: Episodes of one iteration, whose candidates are evaluated in parallel; by
            default about 32, a divisor of ``evaluations`` where there is one.
        env_runners: Processes that sample besides this one's own; 0 samples here.
        learning_rate: Of policy and critics.
        epochs: Passes over an iteration's steps.
        minibatch_size: Steps of one update.
        entropy: Weight of the policy's entropy.
        std: Standard deviation of actions that the policy starts with.
        final_std: What it may at most be at the end; the bound falls linearly from ``std``.
        hidden: Sizes of the hidden layers of policy and critics.
        multiplier_rule: How the multipliers move, "lagrange" or "pid".
        multiplier_learning_rate: Step of "lagrange".
        multiplier_damping: Damping of "lagrange".
        multiplier_max: Largest value of a multiplier.
        deviations: The mean cost plus so many standard deviations of the costs is held at the
            limit, so that most candidates keep it and not only their mean.
    """

    name = "ppo-lagrangian"

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        environment: ProblemSpec,
        *,
        candidates: int | None = None,
        env_runners: int = 0,
        learning_rate: float = 3e-3,
        epochs: int = 10,
        minibatch_size: int = 128,
        entropy: float = 0.0,
        std: float = 0.3,
        final_std: float = 0.1,
        hidden: Sequence[int] = (64, 64),
        multiplier_rule: Literal["lagrange", "pid"] = "lagrange",
        multiplier_learning_rate: float = 1.0,
        multiplier_damping: float = 5.0,
        multiplier_max: float = 100.0,
        deviations: float = 1.0,
    ) -> None:
        super().__init__(problem, seed, evaluations)
        count = candidates or candidates_per_iteration(evaluations)
        # More candidates than it may ask for would leave it without a single iteration.
        self.candidates = max(1, min(count, evaluations))
        register_env(_ENVIRONMENT, _make_environment)
        steps = self.candidates * len(problem.structure.groups)
        runners = max(env_runners, 1)
        last_step = max(evaluations, 1) * len(problem.structure.groups)
        bound = [[0, std], [last_step, min(std, final_std)]]
        config = (
            LagrangianPPOConfig(algo_class=_RememberingPPO)
            .environment(_ENVIRONMENT, env_config={"problem": environment.model_dump(mode="json")})
            .env_runners(
                num_env_runners=env_runners,
                num_envs_per_env_runner=math.ceil(self.candidates / runners),
                gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            )
            .training(
                train_batch_size_per_learner=steps,
                minibatch_size=min(minibatch_size, steps),
                lr=learning_rate,
                num_epochs=epochs,
                entropy_coeff=entropy,
            )
            .rl_module(model_config={"fcnet_hiddens": list(hidden)})
            .constraints(
                limits=[budget.limit for budget in problem.budgets],
                names=[budget.cost for budget in problem.budgets],
                rule=multiplier_rule,
                multiplier_learning_rate=multiplier_learning_rate,
                multiplier_damping=multiplier_damping,
                multiplier_max=multiplier_max,
                deviations=deviations,
            )
            .exploration(std=std, max_std=bound)
            .debugging(seed=seed, log_level="ERROR")
        )
        self._algorithm: _RememberingPPO = config.build_algo()

    def iterate(self, most: int) -> Iteration:
        """See `Agent.iterate`; asks for no candidates where ``most`` is below an iteration's."""
        if most < self.candidates:
            nothing = np.zeros((0, len(self.problem.structure.groups)), dtype=np.int64)
            return Iteration(nothing, None)
        try:
            result = self._algorithm.train()
        except Exception as error:
            raise _ours(error) or error from None
        widths, evaluations = self._finished()
        outcome = dataclasses.replace(self.problem, evaluate=lambda _: evaluations).judge(widths)
        return Iteration(widths, outcome, _flat(result["lagrangian"]))

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        self._algorithm.save_to_path(folder / _CHECKPOINT)

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        self._algorithm.restore_from_path(folder / _CHECKPOINT)

    def stop(self) -> None:
        """See `Agent.stop`."""
        self._algorithm.stop()

    def _finished(self) -> tuple[NDArray[np.int64], list[Evaluation]]:
        """Candidates of the last iteration, as the environment judged them."""
        infos = [episode.get_infos(-1) for episode in self._algorithm.sampled if episode.is_done]
        widths = np.array([info["widths"] for info in infos], dtype=np.int64)
        return widths, [self._evaluation(info) for info in infos]

    def _evaluation(self, info: Mapping[str, Any]) -> Evaluation:
        numbers = {name: float(value) for name, value in info.get("evaluation", {}).items()}
        costs = {name: numbers.pop(name) for name in self.problem.dense.costs if name in numbers}
        error = None if numbers else "The evaluation failed; see the record."
        return Evaluation(tuple(int(width) for width in info["widths"]), numbers, costs, 0.0, error)


def candidates_per_iteration(evaluations: int, about: int = 32) -> int:
    """How many candidates to ask for at a time, so that ``evaluations`` are used up.

    Args:
        evaluations: At least 1.
        about: The number wished for; fewer where that would leave less than 8 iterations.

    Returns:
        The divisor of ``evaluations`` nearest to ``about`` between 3/4 and 5/4 of it; where there
        is none, the number in that range that leaves the fewest unused.
    """
    # Without several iterations nothing is learned at all.
    about = max(1, min(about, evaluations // _ITERATIONS))
    choices = range(max(1, about * 3 // 4), max(1, about * 5 // 4) + 1)
    return min(choices, key=lambda count: (evaluations % count, abs(count - about)))


def _make_environment(context: Any) -> PruningVectorEnv:
    problem = ProblemSpec.model_validate(context["problem"]).build()
    return PruningVectorEnv(problem, context["num_envs"])


def _ours(error: BaseException) -> PruneTuneError | None:
    """The error of ours that RLlib or Ray wrapped, if it is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PruneTuneError):
            return seen
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__ or seen.__context__
    return None


def _flat(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            figures |= _flat(value, f"{prefix}{name}/")
        else:
            figures[prefix + name] = float(value)
    return figures
