"""From what a user hands over (names, classes, objects) to the plain values of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..._live import keep_live, source_digest

__all__ = ["budget_values", "named"]


def named(given: Any) -> Any:
    """What a spec says of a reward, agent, measure or criterion.

    Args:
        given: A name; ``{"name": ..., "parameters": {...}}``, whose name may be a class; or a class
            or object of the user's own, which is kept in this session and sent to workers by value.

    Returns:
        A name, or a mapping with one; lists become lists of them.
    """
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, BaseModel):
        return given.model_dump(mode="json")
    if isinstance(given, Mapping):
        return {**given, "name": named(given["name"])} if "name" in given else dict(given)
    if isinstance(given, list | tuple):
        return [named(each) for each in given]
    name = getattr(given, "__name__", None) or type(given).__name__
    return keep_live(given, name, source_digest(given))


def budget_values(budgets: Any) -> Any:
    """Budgets of a spec, in which a cost may be a function of the user's own."""
    if isinstance(budgets, Mapping):
        return {
            named(cost): list(limit) if isinstance(limit, tuple) else limit
            for cost, limit in budgets.items()
        }
    if isinstance(budgets, list | tuple):
        return [budget_values(each) for each in budgets]
    return budgets
