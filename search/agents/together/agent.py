"""The default agent: Lagrangian PPO whose action is a whole candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ....envs.judge import Judge
from ....envs.problem import Outcome, Problem
from ...lagrangian import LagrangianPPO, LagrangianPPOConfig
from ..agent import Agent, Iteration
from ..ppo import (
    CHECKPOINT,
    Advantages,
    PpoParameters,
    candidates_per_iteration,
    configured,
    draw,
    flat_figures,
    own_error,
)
from ..sensitivity import affordable_narrowings
from .allocation import Sensitivity
from .believed_costs import BelievedCosts
from .candidate_map import CandidateMap
from .imagination import Imagination, Judged
from .runner import CandidateRunner, Sampled

__all__ = ["TogetherAgent", "TogetherParameters"]

Start = Literal["sensitivity", "uniform"]

_CANDIDATES = 20
_SENSITIVITY = "sensitivity.npz"
_COST = "cost:"


@dataclass(frozen=True, kw_only=True)
class TogetherParameters(PpoParameters):
    """Parameters of `TogetherAgent`.

    Attributes:
        start: What an untrained policy's mean is: ``sensitivity`` or ``uniform``.
        scaled: Whether proportions are scaled to the budgets.
        learn_costs: Whether candidates are scaled and moved to where costs that only an evaluation
            reveals are believed to keep their limits, by a model of what was evaluated so far
            (`BelievedCosts`).
        imagined: How many candidates are imagined for every one that is evaluated: their rewards
            and costs are predicted, and the most promising are evaluated (`Imagination`).
        multiplier_learning_rate: As in `PpoParameters`; when left out, 500, and 5 where no budget
            is tabulated: costs that are not scaled to differ by a lot, so that small multipliers
            move them.
        multiplier_damping: As in `PpoParameters`; when left out, 10, and 5 where no budget is
            tabulated.
    """

    start: Start = "sensitivity"
    scaled: bool = True
    learn_costs: bool = True
    imagined: Annotated[int, Field(ge=0)] = 9
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    epochs: Annotated[int, Field(ge=1)] = 20
    clip: Annotated[float, Field(gt=0)] = 0.3
    std: Annotated[float, Field(gt=0)] = 0.2
    final_std: Annotated[float, Field(gt=0)] = 0.05
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (16,)
    advantages: Advantages = "ranked"
    multiplier_learning_rate: Annotated[float, Field(ge=0)] | None = None  # type: ignore[assignment]
    multiplier_damping: Annotated[float, Field(ge=0)] | None = None  # type: ignore[assignment]
    multiplier_max: Annotated[float, Field(ge=0)] = 1e4
    deviations: Annotated[float, Field(ge=0)] = 1.6
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.005

    def decided(self, problem: Problem) -> TogetherParameters:
        """The same with the defaults that depend on the problem."""
        rate, damping = (500.0, 10.0) if len(problem.tabulated) else (5.0, 5.0)
        return dataclasses.replace(
            self,
            multiplier_learning_rate=_given(self.multiplier_learning_rate, rate),
            multiplier_damping=_given(self.multiplier_damping, damping),
        )


class TogetherAgent(Agent):
    """Learns a policy whose one action decides a whole candidate, and a price for every budget.

    Its first iteration lowers one decision at a time, and the policy starts from the candidate
    that these sensitivities allocate (`Sensitivity`). That takes at most a fifth of its
    evaluations; where they are too few for it, or with ``start: uniform``, the policy starts from
    the uniform candidate. Then, each iteration, the policy samples actions, `CandidateMap` makes
    candidates of them, a model of what was evaluated chooses the most promising to evaluate
    (`Imagination`), and the learner is handed all of them. Costs are shares of their limits, and
    the Lagrangian's advantages are ranked. Where fewer evaluations are left than an iteration has,
    as many are asked for, and nothing more is learned.

    Args:
        judge: Judges candidates.
        seed: Seeds the policy's weights and all sampling.
        evaluations: Candidates that it may ask for in all.
        parameters: See `TogetherParameters`.
    """

    name = "ppo-lagrangian"
    follows_ranges = True
    Parameters = TogetherParameters

    def __init__(
        self,
        judge: Judge,
        seed: int,
        evaluations: int,
        parameters: TogetherParameters = TogetherParameters(),
    ) -> None:
        super().__init__(judge, seed, evaluations)
        problem = self.problem
        self._parameters = parameters.decided(problem)
        self._sensitivity: Sensitivity | None = None
        self._narrowed = np.zeros((0, len(problem.space)), dtype=np.int64)
        if parameters.start == "sensitivity":
            self._narrowed = affordable_narrowings(problem, evaluations)
        self.candidates = self._candidates_per_iteration()
        self._imagination = Imagination(judge) if parameters.imagined else None
        # With narrowed candidates to ask for first, the policy cannot be built yet.
        self._algorithm = None if len(self._narrowed) else self._build()

    def iterate(self, most: int) -> Iteration:
        """See `Agent.iterate`; sensitivities are asked for as a whole, or not at all."""
        if self._algorithm is None:
            if most < len(self._narrowed):
                return Iteration.nothing(self.problem)
            return self._ask_sensitivity()
        if most < self.candidates:
            return self._ask_rest(self._algorithm, most)
        try:
            result = self._algorithm.train()
        except Exception as error:
            raise own_error(error) or error from None
        assert self.judge.last is not None
        return Iteration(*self.judge.last, self._figures(result["lagrangian"]))

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        if self._sensitivity is not None:
            costs = {_COST + name: table for name, table in self._sensitivity.costs.items()}
            losses = self._sensitivity.losses
            np.savez(folder / _SENSITIVITY, allow_pickle=False, losses=losses, **costs)
        if self._algorithm is not None:
            self._algorithm.save_to_path(folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        if self._algorithm is None:
            self._sensitivity = _read_sensitivity(folder / _SENSITIVITY)
            self._algorithm = self._build()
        self._algorithm.restore_from_path(folder / CHECKPOINT)

    def stop(self) -> None:
        """See `Agent.stop`."""
        if self._algorithm is not None:
            self._algorithm.stop()

    def _candidates_per_iteration(self) -> int:
        left = self.evaluations - len(self._narrowed)
        contexts = len(self.problem.limits)
        chosen = self._parameters.candidates
        if chosen is None:
            chosen = candidates_per_iteration(left, _CANDIDATES)
            if contexts > 1:
                # Candidates of one limit are compared with each other alone.
                chosen = max(2 * contexts, candidates_per_iteration(left, 2 * _CANDIDATES))
        # More candidates than it may ask for would leave it without a single iteration.
        return max(1, min(chosen, left))

    def _ask_sensitivity(self) -> Iteration:
        outcome = self.judge.ask(self._narrowed)
        self._sensitivity = Sensitivity.fit(
            self.problem, self._narrowed, outcome.rewards, outcome.costs
        )
        self._algorithm = self._build()
        return Iteration(self._narrowed, outcome)

    def _ask_rest(self, algorithm: LagrangianPPO, most: int) -> Iteration:
        """Ask for what is left of the search; nobody would use what could be learned from it."""
        if not most:
            return Iteration.nothing(self.problem)
        algorithm.seed_sampling()
        runner = algorithm.env_runner
        actions = draw(runner.module, runner.observations).clipped
        candidates, believed = self._candidates(actions)
        chosen = self._choose(candidates, believed, most)
        outcome = self.judge.ask(candidates[chosen], self._limits[chosen])
        return Iteration(candidates[chosen], outcome)

    def _build(self) -> LagrangianPPO:
        problem, parameters = self.problem, self._parameters
        self._map = CandidateMap(problem, parameters.scaled, self._sensitivity)
        sampled = self.candidates * (1 + parameters.imagined)
        # Not drawn at random, so that all limits are seen equally often.
        self._contexts = np.arange(sampled) % len(problem.limits)
        self._limits = problem.limits[self._contexts]
        total = max(self.evaluations - len(self._narrowed), 1) * (1 + parameters.imagined)
        config = (
            LagrangianPPOConfig()
            .environment(
                env_config={"limits": self._limits.tolist(), "action_size": self._map.size}
            )
            .env_runners(env_runner_cls=CandidateRunner, num_env_runners=0)
        )
        algorithm: LagrangianPPO = configured(
            config,
            parameters,
            problem,
            seed=self.seed,
            steps=sampled,
            total=total,
            relative=True,
        ).build_algo()
        algorithm.env_runner.judge_actions = self._judge_actions
        return algorithm

    def _candidates(self, actions: NDArray[np.float64]) -> tuple[NDArray[np.int64], BelievedCosts]:
        """The candidates of actions float64 [N, size], and what is believed of costs by now."""
        believed = BelievedCosts(self.problem, self.judge.past, self._parameters.learn_costs)
        candidates = self._map.candidates(actions, self._limits, believed)
        candidates = believed.moved_to_limits(candidates, self._limits)
        return self.problem.space.canonical(candidates), believed

    def _choose(
        self, candidates: NDArray[np.int64], believed: BelievedCosts, count: int
    ) -> NDArray[np.int64]:
        """Which candidates are evaluated, int64 [count]; without imagination the first ones."""
        if self._imagination is None:
            return np.arange(count)
        return self._imagination.choose(believed, candidates, self._limits, self._contexts, count)

    def _judge_actions(self, actions: NDArray[np.float64]) -> Sampled:
        """One iteration's candidates: made of actions, chosen, judged, and the others imagined."""
        limits, judge = self._limits, self.judge
        candidates, believed = self._candidates(actions)
        chosen = self._choose(candidates, believed, self.candidates)
        best = judge.past.best
        outcome = judge.ask(candidates[chosen], limits[chosen])
        judged: Outcome | Judged = outcome
        if self._imagination is not None:
            judged = self._imagination.complete(candidates, limits, chosen, outcome, best)
        costs = (judged.costs / limits).astype(np.float32)
        return Sampled(judged.signals, costs, self._contexts)

    def _figures(self, results: Mapping[str, Any]) -> dict[str, float]:
        """RLlib's figures, with costs as fractions of the dense network's again."""
        figures = flat_figures(results)
        sets = self.problem.limits
        for context, limits in enumerate(sets):
            for budget, limit in zip(self.problem.budgets, limits, strict=True):
                name = budget.cost + (f"@{context}" if len(sets) > 1 else "")
                figures[f"episode_costs/{name}"] *= limit
        return figures


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _read_sensitivity(path: Path) -> Sensitivity | None:
    if not path.is_file():
        return None
    with np.load(path) as kept:
        costs = {
            name.removeprefix(_COST): kept[name] for name in kept.files if name.startswith(_COST)
        }
        return Sensitivity(kept["losses"], costs)
