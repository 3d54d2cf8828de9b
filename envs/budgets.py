"""Budgets: the limits that a candidate's costs must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._nearest import pick
from ..errors import BudgetError
from ..models.costs.cost import Cost
from ..models.space import SearchSpace

__all__ = [
    "Budget",
    "Limit",
    "front_limits",
    "limit_text",
    "parse_budgets",
]

# Limits of a range at which candidates are asked for, and networks delivered (our choice).
_FRONT = 5

Limit = float | str
"""As a user writes it: a fraction of the dense network's cost or an absolute number."""

_LIMIT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%|[^\W\d_]*)", re.IGNORECASE)
# A bare number above 1 is read as absolute only if nobody can have meant a percentage.
_SMALLEST_ABSOLUTE = 1000.0


@dataclass(frozen=True)
class Budget:
    """A limit on one cost, or a range of limits.

    Attributes:
        cost: Name of the cost.
        limit: Largest admissible cost as a fraction of the dense network's, above 0; at most 1
            for tabulated costs.
        lowest: Lower end of a range whose upper end is ``limit``; ``None`` for a single limit.
    """

    cost: str
    limit: float
    lowest: float | None = None


def front_limits(budgets: Sequence[Budget]) -> NDArray[np.float64]:
    """The limits that a search keeps in turn.

    Where there are ranges, five sets of limits, evenly spaced: all ranges go from their lower to
    their upper ends together, so that what a search ends with is a front and not a surface.

    Args:
        budgets: The budgets of the search.

    Returns:
        float64 [K, B], ascending; K is 1 without ranges.
    """
    high = np.array([budget.limit for budget in budgets])
    low = np.array([b.limit if b.lowest is None else b.lowest for b in budgets])
    if (low == high).all():
        return high[None]
    return low + np.linspace(0.0, 1.0, _FRONT)[:, None] * (high - low)


def limit_text(limit: Limit | tuple[Limit, Limit]) -> str:
    """A limit or a range as one word, for names."""
    return f"{limit[0]}-{limit[1]}" if isinstance(limit, tuple) else str(limit)


def parse_budgets(
    budgets: Mapping[str, Limit | tuple[Limit, Limit]],
    space: SearchSpace,
    costs: Mapping[str, Cost],
) -> tuple[Budget, ...]:
    """Read budgets as a user writes them and refuse those that nothing can meet.

    A tabulated cost grows with every decision, so that the smallest candidate has the lowest cost
    of every kind at once, and budgets that it keeps do not contradict each other. Nobody knows
    before the search what a cost that is not tabulated can reach.

    Args:
        budgets: Limit by name of cost: a fraction of the dense network's (``0.5``, ``"50%"``) or
            an absolute number with a unit (``"60M"`` FLOPs or parameters, ``"2MB"``, ``"5ms"``).
            Of the user's own cost a number above 1 is absolute, and so is any number with a word
            behind it (``"3 layers"``). A pair of limits is a range.
        space: The decisions, whose smallest values say what can be reached.
        costs: Every cost that a budget may name, by name.

    Returns:
        One budget per cost, in the order given.

    Raises:
        BudgetError: If there is none, or a limit is malformed, not positive, above the dense
            network's cost, or below what the smallest candidate costs; or a range does not ascend.
        UnknownNameError: If a cost is not known.
    """
    if not budgets:
        raise BudgetError("There is no budget: give at least one, for example flops: 0.5.")
    smallest = space.smallest[None]
    parsed = []
    for name, written in budgets.items():
        cost = pick("cost", name, costs)
        if isinstance(written, (tuple, list)) and len(written) == 2:
            low, high = (_fraction(cost, end) for end in written)
            if low >= high:
                raise BudgetError(
                    f"The budget {name}: [{written[0]}, {written[1]}] is a range from its lower "
                    "to its upper limit; write the smaller one first."
                )
        else:
            low = high = _fraction(cost, written)
        reachable = float(cost.fraction(smallest)[0])
        if low < reachable:
            raise BudgetError(
                f"The budget {name}: {written} cannot be reached: even the smallest candidate "
                f"costs {_ceil(reachable)} of the dense network{_absolute(cost, reachable)}; "
                f"give a limit not below that{_raised(space)}."
            )
        parsed.append(Budget(name, high, low if low < high else None))
    return tuple(parsed)


def _fraction(cost: Cost, written: object) -> float:
    value, unit = _number(cost, written)
    if not math.isfinite(value) or value <= 0:
        raise BudgetError(f"The budget {cost.name}: {written} must be above 0.")
    if unit == "%":
        value, relative = value / 100, True
    else:
        relative = not unit and value <= 1
        if not unit and 1 < value < _SMALLEST_ABSOLUTE and cost.tabulated:
            raise BudgetError(
                f"The budget {cost.name}: {written} is ambiguous: write a fraction of the dense "
                "network up to 1 (0.5), a percentage (50%) or an absolute number with its unit "
                f"({cost.example})."
            )
    if relative and cost.dense == 0:
        raise BudgetError(
            f"The budget {cost.name}: {written} is a fraction of what the dense network costs, "
            f"which is 0; give an absolute limit with a unit, for example {cost.example!r}."
        )
    if not relative:
        if cost.dense is None:
            raise BudgetError(
                f"The budget {cost.name}: {written} is absolute, but the dense network's "
                f"{cost.name} is not known; give a fraction of it, for example 0.5."
            )
        value = value * _scale(cost, written, unit) / (cost.dense or 1.0)
    if value > 1 and cost.tabulated:
        raise BudgetError(
            f"The budget {cost.name}: {written} is above what the dense network costs"
            f"{_absolute(cost, 1.0)}; give a smaller limit."
        )
    return value


def _number(cost: Cost, written: object) -> tuple[float, str]:
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        return float(written), ""
    match = _LIMIT.fullmatch(written.strip()) if isinstance(written, str) else None
    if match is None:
        raise BudgetError(
            f"The budget {cost.name}: {written!r} is not a limit: write a fraction of the dense "
            f"network (0.5), a percentage (50%) or an absolute number ({cost.example})."
        )
    return float(match[1]), match[2] or ""


def _scale(cost: Cost, written: object, unit: str) -> float:
    sizes = {name.lower(): size for name, size in cost.units}
    if unit.lower() in sizes:
        return sizes[unit.lower()]
    if not unit or not cost.tabulated:
        # What a user's own cost counts only the user knows; the word is for those who read.
        return 1.0
    raise BudgetError(
        f"The budget {cost.name}: {written} has an unknown unit; write one of "
        f"{', '.join(name for name, _ in cost.units if name)}, for example {cost.example}."
    )


def _raised(space: SearchSpace) -> str:
    """What else can be changed where decisions keep more than a single unit."""
    return (
        ", or lower smallest, the share that every group keeps"
        if (space.smallest > 1).any()
        else ""
    )


def _ceil(fraction: float) -> str:
    # Rounded up, so that the number in the message is itself reachable.
    return f"{math.ceil(fraction * 1e4) / 1e4:.4f}"


def _absolute(cost: Cost, fraction: float) -> str:
    if cost.dense is None:
        return ""
    value = cost.dense * fraction
    name, size = next(((n, s) for n, s in cost.units if value >= s), cost.units[-1])
    return f" ({math.ceil(value / size * 1e3) / 1e3:g}{name})"
