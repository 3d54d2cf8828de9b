"""Lagrangian PPO as an agent: RLlib's algorithm over the vectorised pruning environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...envs.problem import PruningProblem
from ...errors import PruneTuneError
from ...rewards.evaluation.evaluation import Evaluation
from ..engine.problem_spec import ProblemSpec
from .agent import Agent, Iteration
from .policy import (
    Advantages,
    Decide,
    PolicySettings,
    RememberingPPO,
    Rule,
    build_policy,
    candidates_per_iteration,
)
from .sensitivity import affordable_narrowings
from .together.allocation import Sensitivity
from .warm_start import CHECKPOINT, EarlierPolicy, read_sensitivity, start_from, write_sensitivity

__all__ = ["LagrangianAgent"]

Start = Literal["sensitivity", "uniform"]


class LagrangianAgent(Agent):
    """Learns a policy that decides the widths, and a price for every budget.

    Deciding ``together``, one action holds all widths of a candidate (see
    `CandidateMap`), costs are shares of their limits, and the
    Lagrangian's advantages are ranked. Deciding ``in-order``, the policy walks the groups and sees
    which one it is at (see `PruningEnv`). Where a default is
    ``None``, it depends on that and on whether a budget is tabulated; docs/agents.md has the
    figures that decided.

    Deciding together, its first iteration narrows one group at a time, and the policy starts from
    the widths that these sensitivities allocate (`Sensitivity`).
    That takes at most a fifth of its evaluations; where they are too few for it, or with
    ``start: uniform``, the policy starts from the uniform candidate.

    Args:
        problem: What is searched.
        seed: Of the policy's weights and of all sampling.
        evaluations: Candidates that it may ask for in all.
        environment: The same problem as plain data, for env runners in other processes.
        decide: "together" or "in-order".
        start: What an untrained policy's mean is, deciding together: "sensitivity" or "uniform".
        candidates: Episodes of one iteration, whose candidates are evaluated in parallel; by
            default about 20 (together; 40 where budgets are ranges) or 32, a divisor of what is
            left of ``evaluations`` where there is one.
        init_from: Folder of a run whose policy it starts from, with another network (only
            in-order), other budgets or another reward; ``RUN/tune/TRIAL`` of a comparison. What
            that policy started from is taken over with it.
        env_runners: Processes that sample besides this one's own; 0 samples here.
        scaled: Whether, deciding together, proportions are scaled to the budgets.
        learn_costs: Whether, deciding together, candidates are scaled and moved to where costs
            that only an evaluation reveals are believed to keep their limits, by a model of what
            was evaluated so far (`BelievedCosts`).
        imagined: How many candidates are imagined for every one that is evaluated, deciding
            together: their rewards and costs are predicted from what was evaluated so far, and
            the most promising are evaluated
            (`Imagination`).
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
            `combine_advantages`.
        multiplier_rule: How the multipliers move, "lagrange" or "pid".
        multiplier_learning_rate: Step of "lagrange".
        multiplier_damping: Damping of "lagrange".
        multiplier_max: Largest value of a multiplier.
        deviations: The mean cost plus so many standard deviations of the costs is held at the
            limit, so that most candidates keep it and not only their mean.
        margin: Share of every limit that the multipliers leave free.

    Raises:
        ValueError: If there is no such way to decide or to start, or a parameter does not fit it.
        SpecError: If there is no policy at ``init_from``, or one that does not fit.
    """

    name = "ppo-lagrangian"
    follows_ranges = True

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        environment: ProblemSpec,
        *,
        decide: Decide = "together",
        start: Start = "sensitivity",
        candidates: int | None = None,
        init_from: str | None = None,
        env_runners: int = 0,
        scaled: bool = True,
        learn_costs: bool = True,
        imagined: int | None = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        minibatch_size: int = 128,
        clip: float | None = None,
        entropy: float = 0.0,
        std: float | None = None,
        final_std: float | None = None,
        hidden: Sequence[int] | None = None,
        advantages: Advantages | None = None,
        multiplier_rule: Rule = "lagrange",
        multiplier_learning_rate: float | None = None,
        multiplier_damping: float | None = None,
        multiplier_max: float | None = None,
        deviations: float | None = None,
        margin: float | None = None,
    ) -> None:
        super().__init__(problem, seed, evaluations)
        if start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}, not {start!r}")
        settings = PolicySettings.decided(
            decide,
            tabulated=len(problem.limits) > 0,
            candidates=candidates,
            env_runners=env_runners,
            scaled=scaled,
            learn_costs=learn_costs,
            imagined=imagined,
            learning_rate=learning_rate,
            epochs=epochs,
            minibatch_size=minibatch_size,
            clip=clip,
            entropy=entropy,
            std=std,
            final_std=final_std,
            hidden=hidden,
            advantages=advantages,
            multiplier_rule=multiplier_rule,
            multiplier_learning_rate=multiplier_learning_rate,
            multiplier_damping=multiplier_damping,
            multiplier_max=multiplier_max,
            deviations=deviations,
            margin=margin,
        )
        contexts = len(problem.front)
        if contexts > 1 and not settings.together:
            raise ValueError("ranges of budgets need decide: together")
        self._environment = environment
        self._earlier = None if init_from is None else EarlierPolicy.load(init_from)
        self._sensitivity = None if self._earlier is None else self._earlier.sensitivity
        narrowed = np.zeros((0, len(problem.structure.groups)), dtype=np.int64)
        if start == "sensitivity" and settings.together and self._earlier is None:
            narrowed = affordable_narrowings(problem, evaluations)
        self._narrowed = narrowed
        if candidates is None:
            left = evaluations - len(narrowed)
            about = candidates_per_iteration(left, settings.candidates)
            if contexts > 1:
                # Candidates of one limit are compared with each other alone.
                about = max(2 * contexts, candidates_per_iteration(left, 2 * settings.candidates))
            settings = dataclasses.replace(settings, candidates=about)
        # More candidates than it may ask for would leave it without a single iteration.
        most = max(1, min(settings.candidates, evaluations - len(narrowed)))
        self._settings = dataclasses.replace(settings, candidates=most)
        # With narrowed candidates to ask for first, the policy cannot be built yet.
        self._algorithm = None if len(narrowed) else self._build()

    @property
    def candidates(self) -> int:
        """Candidates of one iteration of the policy."""
        return self._settings.candidates

    def iterate(self, most: int) -> Iteration:
        """See `Agent.iterate`; asks for no candidates where ``most`` is below an iteration's."""
        if most < (len(self._narrowed) if self._algorithm is None else self.candidates):
            nothing = np.zeros((0, len(self.problem.structure.groups)), dtype=np.int64)
            return Iteration(nothing, None)
        if self._algorithm is None:
            return self._ask_sensitivity()
        try:
            result = self._algorithm.train()
        except Exception as error:
            raise _ours(error) or error from None
        widths, limits, evaluations = self._finished(self._algorithm)
        known = dataclasses.replace(self.problem, evaluate=lambda _: evaluations)
        outcome = known.judge(widths, limits)
        return Iteration(widths, outcome, self._figures(result["lagrangian"]))

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        write_sensitivity(folder, self._sensitivity)
        if self._algorithm is not None:
            self._algorithm.save_to_path(folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        if self._algorithm is None:
            self._sensitivity = read_sensitivity(folder)
            self._algorithm = self._build()
        self._algorithm.restore_from_path(folder / CHECKPOINT)

    def stop(self) -> None:
        """See `Agent.stop`."""
        if self._algorithm is not None:
            self._algorithm.stop()

    def _ask_sensitivity(self) -> Iteration:
        outcome = self.problem.judge(self._narrowed)
        narrowed, rewards, costs = self._narrowed, outcome.rewards, outcome.costs
        self._sensitivity = Sensitivity.fit(self.problem, narrowed, rewards, costs)
        self._algorithm = self._build()
        return Iteration(self._narrowed, outcome)

    def _build(self) -> RememberingPPO:
        algorithm = build_policy(
            self._settings,
            self.problem,
            self._environment,
            self.seed,
            self.evaluations - len(self._narrowed),
            self._sensitivity,
        )
        if self._earlier is not None:
            start_from(algorithm, self._earlier)
        return algorithm

    def _figures(self, results: Mapping[str, Any]) -> dict[str, float]:
        figures = _flat(results)
        if self._settings.together:  # whose costs are shares of their limits
            front = self.problem.front
            for context, limits in enumerate(front):
                for budget, limit in zip(self.problem.budgets, limits, strict=True):
                    name = budget.cost + (f"@{context}" if len(front) > 1 else "")
                    figures[f"episode_costs/{name}"] *= limit
        return figures

    def _finished(
        self, algorithm: RememberingPPO
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], list[Evaluation]]:
        """What was evaluated in the last iteration: candidates, what they had to keep, results."""
        finished = [episode.get_infos(-1) for episode in algorithm.sampled if episode.is_done]
        infos = [info for info in finished if not info.get("imagined", False)]
        widths = np.array([info["widths"] for info in infos], dtype=np.int64)
        limits = self.problem.front[[info.get("context", 0) for info in infos]]
        return widths, limits, [self._evaluation(info) for info in infos]

    def _evaluation(self, info: Mapping[str, Any]) -> Evaluation:
        numbers = {name: float(value) for name, value in info.get("evaluation", {}).items()}
        costs = {name: numbers.pop(name) for name in self.problem.dense.costs if name in numbers}
        error = None if numbers else "The evaluation failed; see the record."
        return Evaluation(tuple(int(width) for width in info["widths"]), numbers, costs, 0.0, error)


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
