"""RLlib's algorithm behind `LagrangianAgent`: its settings and how it is built from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import gymnasium as gym
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from ...envs.problem import PruningProblem
from ...envs.vector_env import PruningVectorEnv
from ..engine.problem_spec import ProblemSpec
from ..lagrangian import LagrangianPPO, LagrangianPPOConfig
from .together.allocation import Sensitivity
from .together.environment import OneStepVectorEnv

__all__ = [
    "Advantages",
    "Decide",
    "PolicySettings",
    "RememberingPPO",
    "Rule",
    "build_policy",
    "candidates_per_iteration",
]

Decide = Literal["together", "in-order"]
Advantages = Literal["reward", "combined", "ranked"]
Rule = Literal["lagrange", "pid"]

_ENVIRONMENT = "prunetune-pruning"
_ITERATIONS = 8


@dataclass(frozen=True)
class PolicySettings:
    """Parameters of `LagrangianAgent`, which describes them, with every default decided."""

    decide: Decide
    candidates: int
    env_runners: int
    scaled: bool
    learn_costs: bool
    imagined: int
    learning_rate: float
    epochs: int
    minibatch_size: int
    clip: float
    entropy: float
    std: float
    final_std: float
    hidden: Sequence[int]
    advantages: Advantages
    multiplier_rule: Rule
    multiplier_learning_rate: float
    multiplier_damping: float
    multiplier_max: float
    deviations: float
    margin: float

    @classmethod
    def decided(cls, decide: Decide, tabulated: bool, **given: Any) -> PolicySettings:
        """The settings for a way to decide.

        Args:
            decide: "together" or "in-order".
            tabulated: Whether a budget is on a tabulated cost, which candidates are scaled to.
            given: Any of the others; what is ``None`` or left out depends on these two.

        Raises:
            ValueError: If there is no such way to decide, or it cannot imagine candidates.
        """
        if decide not in _DEFAULTS:
            raise ValueError(f"decide must be one of {', '.join(_DEFAULTS)}, not {decide!r}")
        chosen = {name: value for name, value in given.items() if value is not None}
        defaults = _MEASURED if decide == "together" and not tabulated else _DEFAULTS[decide]
        settings = dataclasses.replace(defaults, **chosen)
        if settings.imagined < 0:
            raise ValueError(f"imagined must be at least 0, not {settings.imagined}")
        if settings.imagined and not settings.together:
            raise ValueError("imagined candidates need decide: together")
        return dataclasses.replace(settings, final_std=min(settings.std, settings.final_std))

    @property
    def together(self) -> bool:
        """Whether one action decides a whole candidate."""
        return self.decide == "together"


_TOGETHER = PolicySettings(
    decide="together",
    candidates=20,
    env_runners=0,
    scaled=True,
    learn_costs=True,
    imagined=9,
    learning_rate=5e-3,
    epochs=20,
    minibatch_size=128,
    clip=0.3,
    entropy=0.0,
    std=0.2,
    final_std=0.05,
    hidden=(16,),
    advantages="ranked",
    multiplier_rule="lagrange",
    multiplier_learning_rate=500.0,
    multiplier_damping=10.0,
    multiplier_max=1e4,
    deviations=1.6,
    margin=0.005,
)
# Costs that are not scaled to differ by a lot, so that small multipliers move them.
_MEASURED = dataclasses.replace(_TOGETHER, multiplier_learning_rate=5.0, multiplier_damping=5.0)
# What is best depends on how the agent decides; see docs/agents.md.
_IN_ORDER = dataclasses.replace(
    _TOGETHER,
    decide="in-order",
    candidates=32,
    imagined=0,
    learning_rate=3e-3,
    epochs=10,
    clip=0.2,
    std=0.3,
    final_std=0.1,
    hidden=(64, 64),
    advantages="combined",
    multiplier_learning_rate=1.0,
    multiplier_damping=5.0,
    multiplier_max=100.0,
    deviations=1.0,
    margin=0.0,
)
_DEFAULTS: Mapping[str, PolicySettings] = MappingProxyType(
    {"together": _TOGETHER, "in-order": _IN_ORDER}
)


class RememberingPPO(LagrangianPPO):
    """Keeps the episodes of the last iteration, wherever they were sampled."""

    sampled: Sequence[SingleAgentEpisode] = ()

    def _sample(self) -> list[SingleAgentEpisode]:
        episodes = super()._sample()
        self.sampled = episodes
        return episodes


def build_policy(
    settings: PolicySettings,
    problem: PruningProblem,
    environment: ProblemSpec,
    seed: int,
    evaluations: int,
    sensitivity: Sensitivity | None = None,
) -> RememberingPPO:
    """Build the algorithm.

    Args:
        settings: Its parameters.
        problem: What is searched.
        environment: The same problem as plain data, for env runners in other processes.
        seed: Of the policy's weights and of all sampling.
        evaluations: Candidates that it is going to ask for; its schedules end with them.
        sensitivity: Of the groups, where a policy that decides together starts from it.
    """
    register_env(_ENVIRONMENT, _make_environment)
    together = settings.together
    length = 1 if together else len(problem.structure.groups)
    sampled = (1 + settings.imagined) * length
    steps, total = settings.candidates * sampled, max(evaluations, 1) * sampled
    each = math.ceil(settings.candidates / max(settings.env_runners, 1))
    rate, narrowing = settings.learning_rate, settings.final_std / settings.std
    config = (
        LagrangianPPOConfig(algo_class=RememberingPPO)
        .environment(
            _ENVIRONMENT,
            env_config={
                "problem": environment.model_dump(mode="json"),
                "together": together,
                "scaled": settings.scaled,
                "learn_costs": settings.learn_costs,
                "imagined": settings.imagined,
                "sensitivity": sensitivity,
            },
        )
        .env_runners(
            num_env_runners=settings.env_runners,
            # They mostly wait for the evaluators, who own the CPUs.
            num_cpus_per_env_runner=0,
            num_envs_per_env_runner=each * (1 + settings.imagined),
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .training(
            train_batch_size_per_learner=steps,
            minibatch_size=min(settings.minibatch_size, steps),
            lr=[[0, rate], [total, rate * narrowing]] if together else rate,
            num_epochs=settings.epochs,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
        )
        .rl_module(model_config={"fcnet_hiddens": list(settings.hidden)})
        .constraints(
            limits=[1.0 if together else each.limit for each in problem.budgets],
            names=[budget.cost for budget in problem.budgets],
            contexts=len(problem.front),
            rule=settings.multiplier_rule,
            multiplier_learning_rate=settings.multiplier_learning_rate,
            multiplier_damping=settings.multiplier_damping,
            multiplier_max=settings.multiplier_max,
            deviations=settings.deviations,
            margin=settings.margin,
            normalise_advantages=settings.advantages,
        )
        .exploration(std=settings.std, max_std=[[0, settings.std], [total, settings.final_std]])
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm: RememberingPPO = config.build_algo()
    return algorithm


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
        return OneStepVectorEnv(
            problem,
            context["num_envs"],
            scaled=context["scaled"],
            sensitivity=context["sensitivity"],
            learn_costs=context["learn_costs"],
            imagined=context["imagined"],
        )
    return PruningVectorEnv(problem, context["num_envs"])
