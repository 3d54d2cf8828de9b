"""The spec: what a user writes to describe a search or a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..._registry import NamedSpec
from ...cluster.connect import ClusterSpec
from ...envs.budgets import Limit
from ...models.builder import FinalRepair, Repair
from ...models.criteria import DEFAULT_CRITERION, CriterionSpec
from ...models.task import TaskSpec
from ...models.training import TrainingSpec
from ...rewards.registry import DEFAULT_MEASURES

__all__ = [
    "BudgetSpec",
    "CompareSpec",
    "FinetuneSpec",
    "SearchSpec",
    "StoppingSpec",
]

_MOST_SEEDS = 10_000

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Seeds all randomness of one search."""

BudgetSpec = Annotated[dict[str, Limit | tuple[Limit, Limit]], Field(min_length=1)]
"""Limit by name of cost: a fraction of dense (``0.5``, ``"50%"``) or absolute (``"60M"``).

A pair is a range, from its lower to its upper limit.
"""


class FinetuneSpec(TrainingSpec):
    """How the best candidates are finished; training as `TrainingSpec`, with gentler defaults.

    Attributes:
        repair: How the best candidate of each search is repaired before it is trained: ``full``, or
            ``block``: full repair, then every block learns, without labels, to give what the dense
            network's gives on the calibration images. ``block`` takes minutes instead of seconds
            and comes nearer to the dense network; 2,048 calibration images or more are advisable.
            ``none`` only recalibrates BatchNorm, as published methods do that have no repair.
        epochs: Passes over the training images; 0 leaves the repaired network as it is.
        images: How many training images, drawn by the seed; all of them when left out.
        learning_rate: The highest one of the schedule.
        distillation: Weight, in [0, 1], of the loss against the dense network's outputs.
        clip: Largest norm of the gradient: a repaired network has large weights, and without it the
            first steps can undo the repair.
        freeze_batchnorm: Whether BatchNorm keeps the statistics that the repair was fitted to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    repair: FinalRepair = "full"
    images: int | None = Field(default=None, ge=2)
    learning_rate: float = Field(default=0.02, gt=0.0)
    distillation: float = Field(default=0.5, ge=0.0, le=1.0)
    clip: float | None = Field(default=1.0, gt=0.0)
    freeze_batchnorm: bool = True


class StoppingSpec(BaseModel):
    """When a comparison stops hopeless searches: asynchronous successive halving.

    Searches of equal budgets are compared by a yardstick that no reward reads: the accuracy of the
    best candidate so far, fully repaired, on training images that steer nothing.

    Attributes:
        first: Share of its evaluations after which a search is first compared, in (0, 1).
        reduction: The best one in so many goes on, and is compared again when it has asked for so
            many times as many candidates.
        images: Images of the yardstick.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: float = Field(default=0.25, gt=0.0, lt=1.0)
    reduction: int = Field(default=3, ge=2)
    images: int = Field(default=1000, ge=1)


class CompareSpec(BaseModel):
    """The grid of a comparison; what is left out is the spec's own single value.

    Attributes:
        rewards: Rewards to compare.
        budgets: Sets of budgets to compare.
        agents: Agents to compare.
        seeds: Seeds of the agents, or how many, beginning with the spec's seed. The task's splits
            keep the spec's seed, so that all trials share their evaluations.
        concurrent: Trials at the same time; ``auto`` takes what keeps the evaluators busy.
        stopping: When hopeless searches are stopped; when left out, never. Which ones are depends
            on the order in which searches get on, so a repeated comparison may stop others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rewards: tuple[NamedSpec, ...] = ()
    budgets: tuple[BudgetSpec, ...] = ()
    agents: tuple[NamedSpec, ...] = ()
    seeds: Annotated[int, Field(ge=1, le=_MOST_SEEDS)] | tuple[Seed, ...] = 1
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    stopping: StoppingSpec | None = None

    @field_validator("rewards", "budgets", "agents", "seeds")
    @classmethod
    def _check_unique(cls, values: Any) -> Any:
        if isinstance(values, tuple):
            for position, value in enumerate(values):
                if value in values[:position]:
                    raise ValueError(f"it names {_short(value)} twice")
        return values

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, values: tuple[BudgetSpec, ...]) -> Any:
        for value in values:
            _check_limits(value)
        return values


class SearchSpec(BaseModel):
    """Everything that decides a search or a comparison.

    Attributes:
        name: For the run folder and the report; the spec file's name when left out.
        method: A published method, whose part of a spec stands under this one: what the spec says
            itself counts. ``prunetune list methods`` names them.
        task: Network and data.
        budgets: What the pruned network may cost.
        criterion: Ranks the channels inside a group.
        repair: How every candidate is repaired inside the search: ``none``, ``quick``, ``light`` or
            ``full``.
            How the best candidates are repaired is ``finetune.repair``.
        precision: Number format of an evaluation; ``auto`` takes the fastest of the machine.
        recalibration: Images that every candidate is recalibrated or aligned on.
        images: Validation images that every candidate is evaluated on, drawn by the seed, with
            standard errors recorded; all of them when left out. Finalists always see all.
        measures: What is recorded of every candidate.
        reward: What the agent maximises.
        agent: What proposes candidates.
        evaluations: Candidates that the agent may ask for.
        shield: Whether candidates are clipped so that the budgets stay reachable.
        smallest: Fraction of its units that every group keeps at least, in [0, 1].
        seed: Seeds the splits, the training and the agent.
        finetune: How the best candidates are trained.
        finalists: Best feasible candidates that are fully repaired; the one that then agrees best
            with the dense network on the validation images is fine-tuned and tested.
        output: The run folder, relative to the working directory; ``runs/NAME-NUMBER`` when left
            out.
        cluster: Where it runs.
        compare: The grid of ``prunetune compare``; a search ignores it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(default="search", min_length=1)
    method: str | None = None
    task: TaskSpec
    budgets: BudgetSpec
    criterion: CriterionSpec = DEFAULT_CRITERION
    repair: Repair = "quick"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    recalibration: int = Field(default=128, ge=1)
    images: int | None = Field(default=None, ge=2)
    measures: tuple[NamedSpec, ...] = DEFAULT_MEASURES
    reward: NamedSpec = NamedSpec(name="accuracy")
    agent: NamedSpec = NamedSpec(name="ppo-lagrangian")
    evaluations: int = Field(default=1000, ge=1)
    shield: bool = False
    smallest: float = Field(default=0.0, ge=0.0, le=1.0)
    seed: Seed = 0
    finetune: FinetuneSpec = FinetuneSpec()
    finalists: int = Field(default=3, ge=1)
    output: Path | None = None
    cluster: ClusterSpec = ClusterSpec()
    compare: CompareSpec = CompareSpec()

    @field_validator("budgets")
    @classmethod
    def _check_budgets(cls, value: BudgetSpec) -> BudgetSpec:
        _check_limits(value)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain YAML values with every default written out; `model_validate` reads them."""
        return self.model_dump(mode="json")

    def one_search(self) -> SearchSpec:
        """The same without the grid: what ``prunetune search`` runs."""
        return self.model_copy(update={"compare": CompareSpec()})

    @property
    def seeds(self) -> tuple[int, ...]:
        """The comparison's seeds, one by one."""
        if isinstance(self.compare.seeds, int):
            return tuple(range(self.seed, self.seed + self.compare.seeds))
        return self.compare.seeds or (self.seed,)


def _check_limits(budgets: BudgetSpec) -> None:
    # What is written with a unit is read, and refused, where the network is known.
    for cost, written in budgets.items():
        for limit in written if isinstance(written, tuple) else (written,):
            if not isinstance(limit, str) and not (math.isfinite(limit) and limit > 0):
                raise ValueError(f"the budget {cost}: {limit:g} must be above 0")


def _short(value: Any) -> str:
    return repr(getattr(value, "name", value))
