"""A problem as plain data, so that it can be sent to any process and written to a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..cluster.pool import PoolClient
from ..envs.budget import parse_budgets
from ..envs.problem import PruningProblem
from ..models.structure import Structure
from ..rewards.evaluation import Evaluation
from ..rewards.registry import RewardSpec, make_reward
from .cost_tables import CostTables
from .history import TrialHistory
from .spec_model import BudgetSpec

__all__ = ["ProblemSpec"]


class ProblemSpec(BaseModel):
    """What a `PruningProblem` is made of.

    Attributes:
        structure: Tables of the network, as ``Structure.to_dict`` gives them.
        dense: The dense network's evaluation, as ``Evaluation.to_row`` gives it.
        budgets: Limits as the user wrote them.
        reward: Judges an evaluation.
        shield: Whether widths are clipped so that the budgets stay reachable.
        smallest: Fraction of its units that every group keeps at least.
        pool: Name of the evaluator pool.
        costs: Costs beside FLOPs and parameters.
        history: Folder of what the search has asked for so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structure: dict[str, Any]
    dense: dict[str, Any]
    budgets: BudgetSpec
    reward: RewardSpec
    shield: bool
    smallest: float
    pool: str
    costs: CostTables = CostTables()
    history: Path | None = None

    def build(self) -> PruningProblem:
        """The problem, on a process that is connected to the pool's cluster.

        Raises:
            PruneTuneError: If a budget cannot be reached, the reward cannot be built or the pool
                is gone.
        """
        structure = Structure.from_dict(self.structure)
        dense = Evaluation.from_row(self.dense)
        costs = self.costs.costs(structure)
        return PruningProblem(
            structure=structure,
            budgets=parse_budgets(self.budgets, structure, costs, self.smallest),
            evaluate=PoolClient(self.pool).evaluate,
            reward=make_reward(self.reward),
            dense=dense,
            costs=costs,
            shield=self.shield,
            smallest=self.smallest,
            best=self._best,
        )

    def _best(self) -> float:
        """From the history, so that it is the same after a restore and in any process."""
        asked = [] if self.history is None else TrialHistory(self.history).load()
        return max((each.reward for each in asked if each.feasible), default=-math.inf)
