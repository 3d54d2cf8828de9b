"""The trials of a comparison: one search each, of one reward, set of budgets, agent and seed."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePath

from pydantic import BaseModel, ConfigDict

from ..._live import is_live, live_name
from ..._registry import NamedSpec
from ...envs.budgets import limit_text
from ...errors import SpecError
from .model import BudgetSpec, SearchSpec

__all__ = ["TrialSpec", "comparison_trials"]

# File systems take 255 bytes; suffixes of files that are named after a trial need some.
_LONGEST = 230
_MOST_TRIALS = 10_000


class TrialSpec(BaseModel):
    """One search of a comparison.

    Attributes:
        name: Unique in its run, and a folder's name.
        reward: What the agent maximises.
        budgets: What the pruned network may cost.
        agent: What proposes candidates.
        seed: Seeds the agent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reward: NamedSpec
    budgets: BudgetSpec
    agent: NamedSpec
    seed: int

    @property
    def without_seed(self) -> tuple[str, str, str]:
        """Reward, budgets and agent for people: what trials of several seeds have in common."""
        budgets = ", ".join(f"{cost} {limit_text(x)}" for cost, x in self.budgets.items())
        return _short(self.reward.name), budgets, _short(self.agent.name)

    @property
    def title(self) -> str:
        """What people are shown as the trial's name."""
        return " | ".join((*self.without_seed, str(self.seed)))


def comparison_trials(spec: SearchSpec) -> tuple[TrialSpec, ...]:
    """All trials of a comparison; of a search, whose grid is empty, the only one.

    Trials of one seed follow each other, so that an interrupted comparison has whole
    seeds rather than whole rewards.

    Raises:
        SpecError: If a trial's name is too long for a folder's, or there are too many trials.
    """
    compare = spec.compare
    rewards = compare.rewards or (spec.reward,)
    budgets = compare.budgets or (spec.budgets,)
    agents = compare.agents or (spec.agent,)
    count = len(rewards) * len(budgets) * len(agents) * len(spec.seeds)
    if count > _MOST_TRIALS:
        raise SpecError(
            f"The comparison has {count} searches (rewards x budgets x agents x seeds), and at "
            f"most {_MOST_TRIALS} make sense; compare less at a time."
        )
    trials = _grid(rewards, budgets, agents, spec.seeds)
    for trial in trials:
        if len(trial.name.encode()) > _LONGEST:
            raise SpecError(
                f"The trial {trial.name[:40]}... would have a name of {len(trial.name.encode())} "
                f"bytes, and a folder's may have {_LONGEST}; shorten the names of your own objects."
            )
    return trials


def _grid(
    rewards: tuple[NamedSpec, ...],
    budgets: tuple[BudgetSpec, ...],
    agents: tuple[NamedSpec, ...],
    seeds: tuple[int, ...],
) -> tuple[TrialSpec, ...]:
    reward_names = _unique([_short(reward.name) for reward in rewards])
    budget_names = _unique(
        ["-".join(f"{_short(cost)}{limit_text(x)}" for cost, x in each.items()) for each in budgets]
    )
    agent_names = _unique([_short(agent.name) for agent in agents])
    trials = []
    for seed, r, b, a in itertools.product(
        seeds, range(len(rewards)), range(len(budgets)), range(len(agents))
    ):
        names = (reward_names[r], budget_names[b], agent_names[a], f"seed{seed}")
        trials.append(
            TrialSpec(
                name="_".join(names),
                reward=rewards[r],
                budgets=dict(budgets[b]),
                agent=agents[a],
                seed=seed,
            )
        )
    return tuple(trials)


def _short(name: str) -> str:
    """A name without the path of the user's own file, fit for a folder's name."""
    if is_live(name):
        return live_name(name)
    location, colon, attribute = name.rpartition(":")
    short = f"{PurePath(location).stem}-{attribute}" if colon else name
    return re.sub(r"[^\w.%-]+", "-", short)


def _unique(names: list[str]) -> list[str]:
    """Number names that are there several times (one reward with several parameters)."""
    safe = [re.sub(r"[^\w.%-]+", "-", name) for name in names]
    return [
        name if safe.count(name) == 1 else f"{name}-{safe[: index + 1].count(name)}"
        for index, name in enumerate(safe)
    ]
