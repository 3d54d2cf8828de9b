"""Scaling candidates: all decisions by one factor, until the budgets are just met."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...envs.problem import Problem

__all__ = ["Keeps", "common_factor", "rescale", "scaled"]

_BISECTIONS = 40

Keeps = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Whether candidates int64 [N, D] keep further limits, bool [N]."""


def rescale(
    problem: Problem, fractions: NDArray[np.float64], limits: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Scale candidates by the largest common factor with which they meet the tabulated budgets.

    Args:
        problem: Its budgets count; where none is tabulated nothing is scaled.
        fractions: Fractions of the decisions' sizes, in [0, 1], float64 [N, D].
        limits: As for `common_factor`.

    Returns:
        int64 [N, D].
    """
    if not len(problem.tabulated):
        return scaled(problem, fractions, np.ones(len(fractions)))
    return scaled(problem, fractions, common_factor(problem, fractions, limits))


def common_factor(
    problem: Problem,
    fractions: NDArray[np.float64],
    limits: NDArray[np.float64] | None = None,
    also: Keeps | None = None,
) -> NDArray[np.float64]:
    """The largest factors with which candidates meet their budgets, found by bisection.

    Args:
        problem: Its tabulated budgets count; there has to be one, or ``also``.
        fractions: Fractions of the decisions' sizes, in [0, 1], float64 [N, D].
        limits: Limits of all budgets, float64 [N, B]; those of the problem when left out.
        also: What else candidates have to keep; it has to get harder as values grow.

    Returns:
        float64 [N], at most what makes every decision full.
    """
    if limits is None:
        limits = np.repeat(problem.limits[-1:], len(fractions), axis=0)

    def keep(factors: NDArray[np.float64]) -> NDArray[np.bool_]:
        candidates = scaled(problem, fractions, factors)
        kept = problem.tabulated.keep(candidates, limits)
        return kept if also is None else kept & also(candidates)

    low = np.zeros(len(fractions))
    high = 1.0 / np.maximum(fractions.min(axis=1), 1e-3)
    full = keep(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = keep(middle)
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    return np.where(full, high, low)


def scaled(
    problem: Problem, fractions: NDArray[np.float64], factors: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Candidates of fractions [N, D] times factors [N], rounded into the space; int64 [N, D]."""
    space = problem.space
    candidates = np.rint(factors[:, None] * fractions * space.sizes).astype(np.int64)
    return np.clip(candidates, space.smallest, space.sizes)
