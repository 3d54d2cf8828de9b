"""One search as a Ray Tune trainable: an iteration of the agent, its history, its checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ray
import torch
from pydantic import BaseModel, ConfigDict
from ray import tune

from ..envs.problem import Outcome, PruningProblem
from ..errors import EvaluationError, PluginError, SpecError
from .agents import Agent, make_agent
from .history import AskedCandidate, TrialHistory
from .problem_spec import ProblemSpec
from .trials import TrialSpec

__all__ = ["ACCURACY", "SearchTrial", "TrialContext"]

_PROGRESS = "trial.json"

ACCURACY = "accuracy"
"""The measure that progress lines show beside the reward, where it is recorded."""


class TrialContext(BaseModel):
    """What all trials of a run share, as plain data.

    Attributes:
        histories: Folder of the trials' histories.
        pool: Name of the evaluator pool.
        structure: Tables of the network.
        dense: The dense network's evaluation as a row.
        evaluations: Candidates that each trial may ask for.
        shield: Whether widths are clipped so that the budgets stay reachable.
        smallest: Fraction of its units that every group keeps at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    histories: Path
    pool: str
    structure: dict[str, Any]
    dense: dict[str, Any]
    evaluations: int
    shield: bool
    smallest: float

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

        Histories and checkpoints then need no folder that all nodes share.
        """
        return tune.PlacementGroupFactory([{f"node:{ray.util.get_node_ip_address()}": 0.001}])

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        """Build the agent."""
        torch.set_num_threads(1)
        self._context = TrialContext.model_validate(context)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: starting a process and importing RLlib takes seconds."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trial = TrialSpec.model_validate(config["trial"])
        environment = self._context.problem(trial)
        self._problem: PruningProblem = environment.build()
        evaluations = self._context.evaluations
        self._agent: Agent | None = None
        self._failure: str | None = None
        try:
            self._agent = make_agent(
                trial.agent, self._problem, environment, trial.seed, evaluations
            )
        except (PluginError, SpecError) as error:
            self._failure = str(error)
        self._history = TrialHistory(self._context.histories / trial.name)
        self._restored_here = False
        self._asked = 0
        self._best: dict[str, float] = {}

    def step(self) -> dict[str, Any]:
        """Run one iteration of the agent."""
        if not self._restored_here:
            # Iterations after the checkpoint are repeated, and perhaps fewer of them.
            self._history.drop_after(self.iteration - 1)
            self._restored_here = True
        if self._agent is None:
            return self._report(done=True, failure=self._failure)
        try:
            iteration = self._agent.iterate(self._context.evaluations - self._asked)
        except EvaluationError as error:
            return self._report(done=True, failure=str(error))
        if iteration.outcome is None:
            return self._report(done=True)
        rows = self._rows(iteration.widths.tolist(), iteration.outcome)
        self._history.write(self.iteration, rows)
        self._asked += len(rows)
        self._remember_best(iteration.outcome)
        share = {"feasible_share": float(iteration.outcome.feasible.mean())}
        return self._report(
            done=self._asked >= self._context.evaluations, **{**iteration.figures, **share}
        )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the agent and the counts."""
        folder = Path(checkpoint_dir)
        if self._agent is not None:
            self._agent.save(folder)
        (folder / _PROGRESS).write_text(json.dumps({"asked": self._asked, "best": self._best}))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continue from what `save_checkpoint` wrote."""
        folder = Path(checkpoint)
        if self._agent is not None:
            self._agent.load(folder)
        progress = json.loads((folder / _PROGRESS).read_text())
        self._asked, self._best = progress["asked"], progress["best"]
        self._restored_here = False

    def cleanup(self) -> None:
        """Stop the agent."""
        if self._agent is not None:
            self._agent.stop()

    def _rows(self, widths: list[list[int]], outcome: Outcome) -> list[AskedCandidate]:
        names = [budget.cost for budget in self._problem.budgets]
        rows = []
        for index, evaluation in enumerate(outcome.evaluations):
            limited = dict(zip(names, outcome.costs[index].tolist(), strict=True))
            failed = evaluation.error is not None
            rows.append(
                AskedCandidate(
                    widths=tuple(widths[index]),
                    reward=math.nan if failed else float(outcome.rewards[index]),
                    costs={**limited, **evaluation.costs},
                    feasible=bool(outcome.feasible[index]),
                    evaluations_before=self._asked + index,
                )
            )
        return rows

    def _remember_best(self, outcome: Outcome) -> None:
        for index, evaluation in enumerate(outcome.evaluations):
            reward = float(outcome.rewards[index])
            if not outcome.feasible[index] or reward <= self._best.get("reward", -math.inf):
                continue
            self._best = {
                "reward": reward,
                ACCURACY: evaluation.measures.get(ACCURACY, math.nan),
                **{
                    budget.cost: float(cost)
                    for budget, cost in zip(
                        self._problem.budgets, outcome.costs[index], strict=True
                    )
                },
            }

    def _report(self, done: bool, **figures: Any) -> dict[str, Any]:
        best = {f"best_{name}": value for name, value in self._best.items()}
        return {"done": done, "evaluations": self._asked, **best, **figures}
