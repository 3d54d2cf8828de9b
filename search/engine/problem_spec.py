"""A problem as plain data, so that it can be sent to any process and written to a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...cluster.pool import PoolClient
from ...envs.budgets import parse_budgets
from ...envs.past import Past
from ...envs.problem import PruningProblem
from ...models.costs.collection import Costs, CostTables
from ...models.costs.tables import Structure
from ...models.space import Decision, SearchSpace
from ...rewards.evaluation.evaluation import Evaluation
from ...rewards.registry import RewardSpec, make_reward
from ..run.history import Asked, TrialHistory
from ..spec.model import BudgetSpec

__all__ = ["ProblemSpec", "search_space"]


def search_space(structure: Structure) -> SearchSpace:
    """The decisions of a network: the width of every channel group."""
    return SearchSpace(
        tuple(Decision(group.name, "channels", group.size) for group in structure.groups)
    )


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
        costs = Costs(structure, self.costs)
        space = search_space(structure).keeping(self.smallest, ["channels"])
        return PruningProblem(
            structure=structure,
            budgets=parse_budgets(self.budgets, space, costs),
            evaluate=PoolClient(self.pool).evaluate,
            reward=make_reward(self.reward),
            dense=dense,
            costs=tuple(costs.values()),
            shield=self.shield,
            smallest=self.smallest,
            best=self._best,
            past=self._past,
        )

    def _best(self) -> float:
        return max((each.reward for each in self._asked() if each.feasible), default=-math.inf)

    def _past(self) -> Past:
        asked = self._asked()
        failed = np.array([not math.isfinite(each.reward) for each in asked])
        names = {name for each in asked for name in each.costs}
        costs = {name: np.array([each.costs.get(name, np.nan) for each in asked]) for name in names}
        return Past(
            np.array([each.candidate for each in asked], dtype=np.int64),
            np.array([each.reward for each in asked], dtype=np.float64),
            {name: np.where(failed, np.nan, values) for name, values in costs.items()},
        )

    def _asked(self) -> list[Asked]:
        """From the history, so that it is the same after a restore and in any process."""
        return [] if self.history is None else TrialHistory(self.history).load()
