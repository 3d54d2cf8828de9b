"""What a few seeds can tell is a median with its interval, and a verdict on a difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

__all__ = ["MARGIN", "Estimate", "Verdict", "compare_paired", "estimate_median"]

MARGIN = 0.005
"""Differences of accuracy up to this count as none (half a point, our choice)."""

# Fewer values say nothing of their own spread.
_FEWEST = 3
_LEVEL = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A median over seeds with its interval.

    Attributes:
        median: Of the values; not-a-number where there are none.
        low: Lower end of the 95 % interval, or ``None`` with fewer than three values.
        high: Its upper end, likewise.
        count: Number of values.
    """

    median: float
    low: float | None
    high: float | None
    count: int


def estimate_median(values: Sequence[float]) -> Estimate:
    """Compute the median and its bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    Args:
        values: One per seed; those that are not numbers are left out.

    Returns:
        The same for the same values: the resampling is seeded.
    """
    known = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    if not len(known):
        return Estimate(math.nan, None, None, 0)
    median = float(np.median(known))
    if len(known) < _FEWEST:
        return Estimate(median, None, None, len(known))
    chosen = np.random.default_rng(0).integers(len(known), size=(_RESAMPLES, len(known)))
    medians = np.median(known[chosen], axis=1)
    low, high = np.quantile(medians, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(median, float(low), float(high), len(known))


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about the difference between two sets of accuracies.

    Attributes:
        outcome: ``on par`` when the whole interval is within ``MARGIN``; ``better`` or ``worse``
            when it excludes zero; otherwise ``unknown``.
        difference: Mean difference, as a fraction; ``None`` when no seed is shared.
        half_width: Half the 95 % interval's width; ``None`` with fewer than three shared seeds.
        seeds: Number of shared seeds.
    """

    outcome: Literal["on par", "better", "worse", "unknown"]
    difference: float | None
    half_width: float | None
    seeds: int

    def sentence(self, one: str, other: str) -> str:
        """Say in plain language how ``one`` compares with ``other``, in points of accuracy."""
        if self.difference is None:
            return f"{one} against {other}: not enough seeds to tell (no seed has both)."
        points = f"{abs(100 * self.difference):.2f}"
        count = f"{self.seeds} seed{'s' * (self.seeds != 1)}"
        if self.half_width is None:
            way = f"{100 * self.difference:+.2f} points in {count}"
            return f"{one} against {other}: not enough seeds to tell ({way})."
        spread = f"{100 * self.half_width:.2f}"
        if self.outcome == "on par":
            return (
                f"{one} is on par with {other}: the difference is {100 * self.difference:+.2f} "
                f"± {spread} points, within {100 * MARGIN:g} ({count})."
            )
        if self.outcome == "unknown":
            return (
                f"{one} against {other}: not enough seeds to tell "
                f"({100 * self.difference:+.2f} ± {spread} points, {count})."
            )
        return f"{one} is {self.outcome} than {other} by {points} ± {spread} points ({count})."


def compare_paired(one: Mapping[int, float], other: Mapping[int, float]) -> Verdict:
    """Compare accuracies of the same seeds.

    The interval is Student's for the mean of paired differences; being on par is an equivalence
    test with the margin ``MARGIN`` (Schuirmann 1987), so that few or noisy seeds never pass for
    equality.

    Args:
        one: Accuracy by seed, as fractions.
        other: What it is compared with.
    """
    seeds = [seed for seed in one if math.isfinite(one[seed] + other.get(seed, math.nan))]
    if not seeds:
        return Verdict("unknown", None, None, 0)
    differences = np.asarray([one[seed] - other[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) < _FEWEST:
        return Verdict("unknown", mean, None, len(seeds))
    error = float(differences.std(ddof=1)) / math.sqrt(len(seeds))
    half_width = float(stats.t.ppf((1 + _LEVEL) / 2, len(seeds) - 1)) * error
    if abs(mean) + half_width <= MARGIN:
        return Verdict("on par", mean, half_width, len(seeds))
    if abs(mean) > half_width:
        return Verdict("better" if mean > 0 else "worse", mean, half_width, len(seeds))
    return Verdict("unknown", mean, half_width, len(seeds))
