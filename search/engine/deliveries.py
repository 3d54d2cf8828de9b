"""What a search delivers: one network, or one per limit where budgets are ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...envs.budgets import Budget, front_limits
from ..run.history import Asked, pick_finalists
from ..spec.trials import TrialSpec

__all__ = ["Delivery", "deliveries"]


@dataclass(frozen=True)
class Delivery:
    """One network that a run delivers.

    Attributes:
        name: Unique in its run, and a folder's name.
        trial: The search whose best candidate it is.
        budget: The limits, as the user wrote them where they are single limits.
        limits: The limits as fractions of dense.
    """

    name: str
    trial: TrialSpec
    budget: Mapping[str, float | str]
    limits: Mapping[str, float]

    @property
    def is_one_of_several(self) -> bool:
        """Whether its search delivers more networks."""
        return self.name != self.trial.name

    def finalists(self, history: Sequence[Asked], count: int) -> list[Asked]:
        """The best candidates of its search, at most ``count``, that keep its limits."""
        limits = self.limits if self.is_one_of_several else None
        return pick_finalists(history, count, limits)


def deliveries(trial: TrialSpec, budgets: Sequence[Budget]) -> tuple[Delivery, ...]:
    """What a trial delivers, by ascending limits.

    Args:
        trial: The search.
        budgets: Its budgets, read.
    """
    front = front_limits(budgets)
    if len(front) == 1:
        limits = {budget.cost: budget.limit for budget in budgets}
        written = {c: x for c, x in trial.budgets.items() if not isinstance(x, tuple)}
        return (Delivery(trial.name, trial, written, limits),)
    found = []
    for number, row in enumerate(front, start=1):
        # Four digits are enough for people; what decides is the limit itself.
        limits = {budget.cost: float(x) for budget, x in zip(budgets, row, strict=True)}
        written = {
            cost: round(limits[cost], 4) if isinstance(limit, tuple) else limit
            for cost, limit in trial.budgets.items()
        }
        found.append(Delivery(f"{trial.name}_{number}of{len(front)}", trial, written, limits))
    return tuple(found)
