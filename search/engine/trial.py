"""One search as a Ray Tune trainable: an iteration of the agent, its history, its checkpoint."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, TextIO

import ray
import torch
from pydantic import BaseModel, ConfigDict
from ray import tune

from ..._live import LiveObjects
from ...envs.problem import Outcome, PruningProblem
from ...errors import EvaluationError, PluginError, SpecError
from ...models.costs.collection import CostTables
from ..agents import Agent, make_agent
from ..run.checkpoints import (
    TrialProgress,
    read_checkpoint,
    seal_checkpoint,
    trial_checkpoints,
    whole_checkpoints,
)
from ..run.history import Asked, TrialHistory, pick_finalists
from ..run.locks import take
from ..spec.model import AgentSpec, StoppingSpec
from ..spec.trials import TrialSpec
from .problem_spec import ProblemSpec
from .rungs import Rungs, stopped_at
from .yardstick import YardstickClient

__all__ = ["ACCURACY", "SearchTrial", "TrialContext"]

_log = logging.getLogger(__name__)

# The process of an earlier attempt may outlive its driver for some seconds.
_PATIENCE_SECONDS = 60.0

ACCURACY = "accuracy"
"""The measure that progress lines show beside the reward, where it is recorded."""


class TrialContext(BaseModel):
    """What all trials of a run share, as plain data.

    Attributes:
        histories: Folder of the trials' histories.
        experiment: Folder of Tune's experiment; trials continue from the newest checkpoint in it.
        pool: Name of the evaluator pool.
        structure: Tables of the network.
        dense: The dense network's evaluation as a row.
        evaluations: Candidates that each trial may ask for.
        shield: Whether widths are clipped so that the budgets stay reachable.
        smallest: Fraction of its units that every group keeps at least.
        costs: Costs beside FLOPs and parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    histories: Path
    experiment: Path
    pool: str
    structure: dict[str, Any]
    dense: dict[str, Any]
    evaluations: int
    shield: bool
    smallest: float
    rungs: Path
    stopping: StoppingSpec | None = None
    costs: CostTables = CostTables()

    def problem(self, trial: TrialSpec) -> ProblemSpec:
        """What a trial searches."""
        return ProblemSpec(
            structure=self.structure,
            dense=self.dense,
            budgets=trial.budgets,
            reward=trial.reward,
            shield=self.shield,
            smallest=self.smallest,
            pool=self.pool,
            history=self.histories / trial.name,
            costs=self.costs,
        )


class SearchTrial(tune.Trainable):
    """One iteration a step, until the agent has asked for all its candidates.

    Its configuration has a `TrialSpec` under ``trial``; its parameter ``context`` is a
    `TrialContext`; both as plain values. A reward that cannot be used ends the trial with the
    reason under ``failure`` instead of an exception, because repeating it would not help;
    everything else is Tune's to retry.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Next to nothing, so that the evaluators own the CPUs; but on the driver's node.

        Histories and checkpoints then need no folder that all nodes share. An agent that starts
        processes itself says how many by its parameter ``env_runners``; RLlib wants a bundle of
        resources for each of them.
        """
        agent = AgentSpec.model_validate(config["trial"]["agent"])
        processes = 1 + int(agent.parameters.get("env_runners", 0))
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        return tune.PlacementGroupFactory([dict(here) for _ in range(processes)])

    def setup(
        self, config: dict[str, Any], context: dict[str, Any], live: LiveObjects | None = None
    ) -> None:
        """Build the agent; unpickling ``live`` made the names of the session's objects known."""
        torch.set_num_threads(1)
        self._context = TrialContext.model_validate(context)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: starting a process and importing RLlib takes seconds."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = TrialSpec.model_validate(config["trial"])
        self._history = TrialHistory(self._context.histories / self._trial.name)
        # Whoever else works on this trial is on its way out, and must not write any more.
        self._lock: TextIO | None = take(self._history.folder / ".lock", _PATIENCE_SECONDS)
        self._environment = self._context.problem(self._trial)
        self._problem: PruningProblem = self._environment.build()
        self._progress = TrialProgress()
        self._failure: str | None = None
        self._agent = self._make_agent()
        self._continue()
        self._settled = False

    def _make_agent(self) -> Agent | None:
        trial = self._trial
        try:
            return make_agent(
                trial.agent,
                self._problem,
                self._environment,
                trial.seed,
                self._context.evaluations,
            )
        except (PluginError, SpecError) as error:
            self._failure = str(error)
            return None

    def _continue(self) -> None:
        """Load the newest checkpoint that can be loaded; without one the trial begins afresh."""
        folders = trial_checkpoints(self._context.experiment, self._trial.name)
        for folder, progress in whole_checkpoints(folders):
            try:
                self._load(folder, progress)
                return
            except Exception as error:
                _log.warning("The checkpoint %s cannot be loaded: %s", folder, error)
                # Perhaps half of it was.
                if self._agent is not None:
                    self._agent.stop()
                self._agent = self._make_agent()

    def _load(self, folder: Path, progress: TrialProgress) -> None:
        if self._agent is not None:
            self._agent.load(folder)
        self._progress = progress

    def step(self) -> dict[str, Any]:
        """Run one iteration of the agent."""
        if stopped_at(self._context.rungs, self._trial.name) is not None:
            return self._report(done=True)
        if not self._settled:
            # Iterations after the checkpoint are repeated, and perhaps fewer of them.
            self._history.drop_after(self._progress.iterations - 1)
            self._settled = True
        if self._agent is None:
            return self._report(done=True, failure=self._failure)
        progress = self._progress
        try:
            iteration = self._agent.iterate(self._context.evaluations - progress.asked)
        except EvaluationError as error:
            return self._report(done=True, failure=str(error))
        if iteration.outcome is None:
            return self._report(done=True)
        rows = self._rows(iteration.candidates.tolist(), iteration.outcome)
        self._history.write(progress.iterations, rows)
        self._progress = TrialProgress(
            iterations=progress.iterations + 1,
            asked=progress.asked + len(rows),
            best=self._best_of(iteration.outcome),
        )
        share = {"feasible_share": float(iteration.outcome.feasible.mean())}
        ended = self._progress.asked >= self._context.evaluations
        return self._report(
            done=ended or self._is_hopeless(progress.asked), **{**iteration.figures, **share}
        )

    def _is_hopeless(self, before: int) -> bool:
        """Whether the trial is stopped at a rung that its last iteration reached."""
        context, trial = self._context, self._trial
        if context.stopping is None:
            return False
        rungs = Rungs(context.rungs, context.stopping, context.evaluations)
        rung = rungs.due(before, self._progress.asked)
        if rung is None:
            return False
        found = pick_finalists(self._history.load(), 1)
        # Without a feasible candidate there is nothing to deliver.
        yardstick = YardstickClient(context.pool).measure(found[0].candidate) if found else 0.0
        return not rungs.goes_on(rung, trial.budgets, trial.name, yardstick)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the agent and how far it has come."""
        folder = Path(checkpoint_dir)
        if self._agent is not None:
            self._agent.save(folder)
        seal_checkpoint(folder, self._progress)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continue from what `save_checkpoint` wrote, unless we have come further already."""
        folder = Path(checkpoint)
        progress = read_checkpoint(folder)
        if progress is not None and progress.iterations > self._progress.iterations:
            self._load(folder, progress)

    def cleanup(self) -> None:
        """Stop the agent."""
        if self._agent is not None:
            self._agent.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _rows(self, widths: list[list[int]], outcome: Outcome) -> list[Asked]:
        names = [budget.cost for budget in self._problem.budgets]
        rows = []
        for index, evaluation in enumerate(outcome.evaluations):
            limited = dict(zip(names, outcome.costs[index].tolist(), strict=True))
            failed = evaluation.error is not None
            rows.append(
                Asked(
                    candidate=tuple(widths[index]),
                    reward=math.nan if failed else float(outcome.rewards[index]),
                    costs={**limited, **evaluation.costs},
                    feasible=bool(outcome.feasible[index]),
                    evaluations_before=self._progress.asked + index,
                )
            )
        return rows

    def _best_of(self, outcome: Outcome) -> dict[str, float]:
        """The figures of the best feasible candidate so far."""
        best = self._progress.best
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
        progress = self._progress
        best = {f"best_{name}": value for name, value in progress.best.items()}
        return {"done": done, "evaluations": progress.asked, **best, **figures}
