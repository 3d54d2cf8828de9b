"""Lagrangian PPO as an agent: RLlib's algorithm over the vectorised pruning environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from ...envs.one_step import OneStepVectorEnv
from ...envs.problem import PruningProblem
from ...envs.vector_env import PruningVectorEnv
from ...errors import PruneTuneError
from ...rewards.evaluation import Evaluation
from ..lagrangian import LagrangianPPO, LagrangianPPOConfig
from ..problem_spec import ProblemSpec
from .agent import Agent, Iteration
from .warm_start import CHECKPOINT, load_policy, start_from

__all__ = ["LagrangianAgent", "candidates_per_iteration"]

_ENVIRONMENT = "prunetune-pruning"
_ITERATIONS = 8

Decide = Literal["together", "in-order"]
Advantages = Literal["reward", "combined", "ranked"]
_Value = TypeVar("_Value")


class _RememberingPPO(LagrangianPPO):
    """Keeps the episodes of the last iteration, wherever they were sampled."""

    sampled: Sequence[SingleAgentEpisode] = ()

    def _sample(self) -> list[SingleAgentEpisode]:
        episodes = super()._sample()
        self.sampled = episodes
        return episodes


@dataclass(frozen=True)
class _Defaults:
    """Parameters whose best value depends on how the agent decides; see docs/agents.md."""

    candidates: int
    learning_rate: float
    epochs: int
    clip: float
    final_std: float
    hidden: tuple[int, ...]
    advantages: Advantages
    multiplier_learning_rate: float
    multiplier_max: float
    deviations: float


_DEFAULTS: Mapping[str, _Defaults] = {
    "together": _Defaults(
        candidates=20,
        learning_rate=5e-3,
        epochs=20,
        clip=0.3,
        final_std=0.05,
        hidden=(16,),
        advantages="ranked",
        multiplier_learning_rate=200.0,
        multiplier_max=1e4,
        deviations=1.6,
    ),
    "in-order": _Defaults(
        candidates=32,
        learning_rate=3e-3,
        epochs=10,
        clip=0.2,
        final_std=0.1,
        hidden=(64, 64),
        advantages="combined",
        multiplier_learning_rate=1.0,
        multiplier_max=100.0,
        deviations=1.0,
    ),
}


class LagrangianAgent(Agent):
    """Learns a policy that decides the widths, and a price for every budget.

    Deciding ``together``, one action holds all widths of a candidate (see
    :class:`~prunetune.envs.projection.CandidateMap`), costs are shares of their limits, and the
    Lagrangian's advantages are ranked. Deciding ``in-order``, the policy walks the groups and sees
    which one it is at (see :class:`~prunetune.envs.pruning_env.PruningEnv`). Where a default is
    ``None``, it depends on that; docs/agents.md has the figures that decided.

    Args:
        problem: What is searched.
        seed: Of the policy's weights and of all sampling.
        evaluations: Candidates that it may ask for in all.
        environment: The same problem as plain data, for env runners in other processes.
        decide: "together" or "in-order".
        candidates: Episodes of one iteration, whose candidates are evaluated in parallel; by
            default about 20 (together) or 32, a divisor of ``evaluations`` where there is one.
        init_from: Folder of a run whose policy it starts from, with another network (only
            in-order), other budgets or another reward; ``RUN/tune/TRIAL`` of a comparison.
        env_runners: Processes that sample besides this one's own; 0 samples here.
        scaled: Whether, deciding together, proportions are scaled to tabulated budgets.
        learning_rate: Of policy and critics. Deciding together, it falls in proportion to the
            bound on the standard deviation, so that steps stay in proportion to what is explored.
        epochs: Passes over an iteration's steps.
        minibatch_size: Steps of one update.
        clip: PPO's bound on the ratio of new to old probability, as a distance from 1.
        entropy: Weight of the policy's entropy.
        std: Standard deviation of actions that the policy starts with.
        final_std: What it may at most be at the end; the bound falls linearly from ``std``.
        hidden: Sizes of the hidden layers of policy and critics.
        advantages: What of them is normalised, "reward", "combined" or "ranked"; see
            :func:`~prunetune.search.lagrangian.connectors.combine_advantages`.
        multiplier_rule: How the multipliers move, "lagrange" or "pid".
        multiplier_learning_rate: Step of "lagrange".
        multiplier_damping: Damping of "lagrange".
        multiplier_max: Largest value of a multiplier.
        deviations: The mean cost plus so many standard deviations of the costs is held at the
            limit, so that most candidates keep it and not only their mean.

    Raises:
        ValueError: If there is no such way to decide.
        SpecError: If there is no policy at ``init_from``, or one that does not fit.
    """

    name = "ppo-lagrangian"

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        environment: ProblemSpec,
        *,
        decide: Decide = "together",
        candidates: int | None = None,
        init_from: str | None = None,
        env_runners: int = 0,
        scaled: bool = True,
        learning_rate: float | None = None,
        epochs: int | None = None,
        minibatch_size: int = 128,
        clip: float | None = None,
        entropy: float = 0.0,
        std: float = 0.3,
        final_std: float | None = None,
        hidden: Sequence[int] | None = None,
        advantages: Advantages | None = None,
        multiplier_rule: Literal["lagrange", "pid"] = "lagrange",
        multiplier_learning_rate: float | None = None,
        multiplier_damping: float = 5.0,
        multiplier_max: float | None = None,
        deviations: float | None = None,
    ) -> None:
        super().__init__(problem, seed, evaluations)
        if decide not in _DEFAULTS:
            raise ValueError(f"decide must be one of {', '.join(_DEFAULTS)}, not {decide!r}")
        self._together = decide == "together"
        default = _DEFAULTS[decide]
        wanted = _chosen(candidates, candidates_per_iteration(evaluations, default.candidates))
        # More candidates than it may ask for would leave it without a single iteration.
        self.candidates = max(1, min(wanted, evaluations))
        weights = None if init_from is None else load_policy(init_from)
        register_env(_ENVIRONMENT, _make_environment)
        length = 1 if self._together else len(problem.structure.groups)
        steps = self.candidates * length
        runners = max(env_runners, 1)
        last = min(std, _chosen(final_std, default.final_std))
        rate = _chosen(learning_rate, default.learning_rate)
        total = max(evaluations, 1) * length
        config = (
            LagrangianPPOConfig(algo_class=_RememberingPPO)
            .environment(
                _ENVIRONMENT,
                env_config={
                    "problem": environment.model_dump(mode="json"),
                    "together": self._together,
                    "scaled": scaled,
                },
            )
            .env_runners(
                num_env_runners=env_runners,
                # They mostly wait for the evaluators, who own the CPUs.
                num_cpus_per_env_runner=0,
                num_envs_per_env_runner=math.ceil(self.candidates / runners),
                gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            )
            .training(
                train_batch_size_per_learner=steps,
                minibatch_size=min(minibatch_size, steps),
                lr=[[0, rate], [total, rate * last / std]] if self._together else rate,
                num_epochs=_chosen(epochs, default.epochs),
                clip_param=_chosen(clip, default.clip),
                entropy_coeff=entropy,
            )
            .rl_module(model_config={"fcnet_hiddens": list(_chosen(hidden, default.hidden))})
            .constraints(
                limits=[1.0 if self._together else each.limit for each in problem.budgets],
                names=[budget.cost for budget in problem.budgets],
                rule=multiplier_rule,
                multiplier_learning_rate=_chosen(
                    multiplier_learning_rate, default.multiplier_learning_rate
                ),
                multiplier_damping=multiplier_damping,
                multiplier_max=_chosen(multiplier_max, default.multiplier_max),
                deviations=_chosen(deviations, default.deviations),
                normalise_advantages=_chosen(advantages, default.advantages),
            )
            .exploration(std=std, max_std=[[0, std], [total, last]])
            .debugging(seed=seed, log_level="ERROR")
        )
        self._algorithm: _RememberingPPO = config.build_algo()
        if weights is not None:
            start_from(self._algorithm, weights, str(init_from))

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
        return Iteration(widths, outcome, self._figures(result["lagrangian"]))

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        self._algorithm.save_to_path(folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        self._algorithm.restore_from_path(folder / CHECKPOINT)

    def stop(self) -> None:
        """See `Agent.stop`."""
        self._algorithm.stop()

    def _figures(self, results: Mapping[str, Any]) -> dict[str, float]:
        figures = _flat(results)
        if self._together:  # whose costs are shares of their limits
            for budget in self.problem.budgets:
                figures[f"episode_costs/{budget.cost}"] *= budget.limit
        return figures

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


def _make_environment(context: Any) -> PruningVectorEnv | OneStepVectorEnv:
    problem = ProblemSpec.model_validate(context["problem"]).build()
    if context["together"]:
        return OneStepVectorEnv(problem, context["num_envs"], context["scaled"])
    return PruningVectorEnv(problem, context["num_envs"])


def _chosen(given: _Value | None, default: _Value) -> _Value:
    return default if given is None else given


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
