"""One search as a Ray Tune trainable: an iteration of the agent, its history, its checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import tune

from ..._live import LiveObjects
from ...cluster.lifeline import Lifeline
from ...cluster.pool import PoolClient
from ...envs.judge import Judge
from ...envs.past import Past
from ...envs.problem import Outcome, Problem
from ...errors import EvaluationError, PluginError, SpecError
from ..agents import Agent, make_agent
from ..run.checkpoints import (
    TrialEnd,
    TrialState,
    read_checkpoint,
    seal_checkpoint,
    trial_checkpoints,
    whole_checkpoints,
    write_end,
)
from ..run.history import Asked, TrialHistory, pick_finalists
from ..run.locks import take
from ..spec.model import StoppingSpec
from ..spec.trials import TrialSpec
from .stopping import Rungs, YardstickClient, stopped_at

__all__ = ["ACCURACY", "SearchTrial", "TrialPlan", "told"]

_log = logging.getLogger(__name__)

# The process of an earlier attempt may outlive its driver for some seconds.
_PATIENCE_SECONDS = 60.0

ACCURACY = "accuracy"
"""The measure that progress lines show beside the reward, where it is recorded."""


@dataclass(frozen=True)
class TrialPlan:
    """Where and how long the trials of a run search, and how they are stopped.

    Attributes:
        histories: Folder of the trials' histories.
        experiment: Folder of Tune's experiment; trials continue from the newest checkpoint in it.
        pool: Name of the evaluator pool.
        evaluations: Candidates that each trial may ask for.
        rungs: Folder of the decisions to stop hopeless searches.
        stopping: When they are stopped; ``None`` for never.
        lifeline: Of the driver, without which they end.
    """

    histories: Path
    experiment: Path
    pool: str
    evaluations: int
    rungs: Path
    stopping: StoppingSpec | None = None
    lifeline: Lifeline = field(default_factory=Lifeline.of_this_process)


class SearchTrial(tune.Trainable):
    """One iteration a step, until the agent has asked for all its candidates.

    Its configuration has a `TrialSpec` under ``trial``, as plain values; its parameters are a
    `TrialPlan` and the `Problem` of every trial by name. A reward that cannot be used ends the
    trial with the reason under ``failure`` instead of an exception, because repeating it would not
    help; everything else is Tune's to retry.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Next to nothing, so that the evaluators own the CPUs; but on the driver's node.

        Histories and checkpoints then need no folder that all nodes share.
        """
        return tune.PlacementGroupFactory([{f"node:{ray.util.get_node_ip_address()}": 0.001}])

    def setup(
        self,
        config: dict[str, Any],
        plan: TrialPlan,
        problems: Mapping[str, Problem],
        live: LiveObjects | None = None,
    ) -> None:
        """Build the agent; unpickling ``live`` made the names of the session's objects known."""
        torch.set_num_threads(1)
        plan.lifeline.depend()
        self._plan, self._problems = plan, problems
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: starting a process and importing RLlib takes seconds."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = TrialSpec.model_validate(config["trial"])
        self._history = TrialHistory(self._plan.histories / self._trial.name)
        # Whoever else works on this trial is on its way out, and must not write any more.
        self._lock: TextIO | None = take(self._history.folder / ".lock", _PATIENCE_SECONDS)
        self._problem = self._problems[self._trial.name]
        self._judge = Judge(self._problem, PoolClient(self._plan.pool))
        self._state = TrialState()
        self._failure: str | None = None
        self._agent = self._make_agent()
        self._continue()
        self._has_past = False

    def _make_agent(self) -> Agent | None:
        trial = self._trial
        try:
            return make_agent(trial.agent, self._judge, trial.seed, self._plan.evaluations)
        except (PluginError, SpecError) as error:
            self._failure = str(error)
            return None

    def _continue(self) -> None:
        """Load the newest checkpoint that can be loaded; without one the trial begins afresh."""
        folders = trial_checkpoints(self._plan.experiment, self._trial.name)
        for folder, state in whole_checkpoints(folders):
            try:
                self._load(folder, state)
                return
            except Exception as error:
                _log.warning("The checkpoint %s cannot be loaded: %s", folder, error)
                # Perhaps half of it was.
                if self._agent is not None:
                    self._agent.stop()
                self._agent = self._make_agent()

    def _load(self, folder: Path, state: TrialState) -> None:
        if self._agent is not None:
            self._agent.load(folder)
        self._state = state

    def step(self) -> dict[str, Any]:
        """Run one iteration of the agent."""
        if stopped_at(self._plan.rungs, self._trial.name) is not None:
            return self._report(done=True)
        if not self._has_past:
            self._remember()
        if self._agent is None:
            return self._report(done=True, failure=self._failure)
        state = self._state
        if state.asked >= self._plan.evaluations:
            return self._report(done=True)
        try:
            iteration = self._agent.iterate(self._plan.evaluations - state.asked)
        except EvaluationError as error:
            return self._report(done=True, failure=str(error))
        if iteration.outcome is None:
            return self._report(done=True)
        rows = self._rows(iteration.candidates, iteration.outcome)
        self._history.write(state.iterations, rows)
        self._state = TrialState(
            iterations=state.iterations + 1,
            asked=state.asked + len(rows),
            best=self._best_of(iteration.outcome),
        )
        share = {"feasible_share": float(iteration.outcome.feasible.mean())}
        ended = self._state.asked >= self._plan.evaluations
        return self._report(
            done=ended or self._is_hopeless(state.asked), **{**iteration.figures, **share}
        )

    def _is_hopeless(self, before: int) -> bool:
        """Whether the trial is stopped at a rung that its last iteration reached."""
        plan, trial = self._plan, self._trial
        if plan.stopping is None:
            return False
        rungs = Rungs(plan.rungs, plan.stopping, plan.evaluations)
        rung = rungs.due(before, self._state.asked)
        if rung is None:
            return False
        found = pick_finalists(self._history.load(), 1)
        # Without a feasible candidate there is nothing to deliver.
        yardstick = YardstickClient(plan.pool).measure(found[0].candidate) if found else 0.0
        return not rungs.goes_on(rung, trial.budgets, trial.name, yardstick)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the agent and how far it has come."""
        folder = Path(checkpoint_dir)
        if self._agent is not None:
            self._agent.save(folder)
        seal_checkpoint(folder, self._state)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continue from what `save_checkpoint` wrote, unless we have come further already."""
        folder = Path(checkpoint)
        state = read_checkpoint(folder)
        if state is not None and state.iterations > self._state.iterations:
            self._load(folder, state)
            self._has_past = False

    def cleanup(self) -> None:
        """Stop the agent."""
        if self._agent is not None:
            self._agent.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _remember(self) -> None:
        """Take up the past where the checkpoint left it; later iterations are repeated."""
        self._history.drop_after(self._state.iterations - 1)
        asked = self._history.load()
        self._judge.past = Past()
        self._judge.past.append(
            [each.candidate for each in asked],
            [each.reward for each in asked],
            [each.costs for each in asked],
            [each.feasible for each in asked],
        )
        self._has_past = True

    def _rows(self, candidates: NDArray[np.int64], outcome: Outcome) -> list[Asked]:
        names = [budget.cost for budget in self._problem.budgets]
        rewards = np.where(outcome.succeeded, outcome.rewards, np.nan)
        return [
            Asked(
                candidate=tuple(candidate),
                reward=float(rewards[index]),
                costs={
                    **dict(zip(names, outcome.costs[index].tolist(), strict=True)),
                    **outcome.evaluations[index].costs,
                },
                feasible=bool(outcome.feasible[index]),
                evaluations_before=self._state.asked + index,
            )
            for index, candidate in enumerate(candidates.tolist())
        ]

    def _best_of(self, outcome: Outcome) -> dict[str, float]:
        """The figures of the best feasible candidate so far."""
        best = self._state.best
        for index, evaluation in enumerate(outcome.evaluations):
            reward = float(outcome.rewards[index])
            if not outcome.feasible[index] or reward <= best.get("reward", -math.inf):
                continue
            best = {
                "reward": reward,
                ACCURACY: evaluation.measures.get(ACCURACY, math.nan),
                **{
                    budget.cost: float(cost)
                    for budget, cost in zip(
                        self._problem.budgets, outcome.costs[index], strict=True
                    )
                },
            }
        return best

    def _report(self, done: bool, **figures: Any) -> dict[str, Any]:
        state = self._state
        if done:
            end = TrialEnd(self._plan.evaluations, state, figures.get("failure"))
            write_end(self._history.folder, end)
        return {"done": done, **told(state), **figures}


def told(state: TrialState) -> dict[str, float]:
    """How far a trial has come, as its results tell Tune and the table of searches."""
    best = {f"best_{name}": value for name, value in state.best.items()}
    return {"evaluations": state.asked, **best}
