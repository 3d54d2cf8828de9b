"""How many channels a relative error asks for when channels are sampled by their sensitivity.

This is the arithmetic of provable filter pruning (Baykal, Liebenwein et al. 2020, arXiv
1911.07412),
with the constants of its authors' released code. It needs no network: a layer is the sensitivities
of what it reads, and a number of events that a union bound goes over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAILURE", "SampledLayer", "calibration_size", "draws_for", "expected_distinct"]

FAILURE = 1e-16
"""Delta of the authors' code: the probability with which a bound may not hold."""

_K, _C = 3.0, 3.0
_BISECTIONS = 80
_ERRORS = (1e-12, 1e12)


@dataclass(frozen=True, eq=False)
class SampledLayer:
    """What decides how many channels a layer needs for a relative error.

    Attributes:
        sensitivities: Of each unit that it reads, in [0, 1], float64 [units].
        events: Places of the output map plus one, times kernel positions: what the union bound of
            the authors' code goes over.
        failure: Probability with which the bound may not hold, in (0, 1).
    """

    sensitivities: NDArray[np.float64]
    events: float
    failure: float = FAILURE

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """With which units are drawn, float64 [units]; even where no unit is ever used."""
        total = self.sensitivities.sum()
        if total <= 0.0:
            return np.full(len(self.sensitivities), 1.0 / len(self.sensitivities))
        return np.asarray(self.sensitivities / total)

    def draws(self, error: float) -> float:
        """Draws with replacement that suffice for a relative error, a whole number of at least 1.

        m = ceil(K (6 + 2 e) S 2 C log(8 events / delta) / e^2), with K = C = 3 and S the sum of
        sensitivities: the authors' code, which states the paper's theorem with these constants.
        """
        factor = 2.0 * _C * np.log(8.0 * self.events / self.failure)
        total = max(float(self.sensitivities.sum()), np.finfo(np.float64).tiny)
        return float(max(1.0, np.ceil(_K * (6.0 + 2.0 * error) * total * factor / error**2)))

    def kept(self, error: float) -> int:
        """Units that are expected to be among so many draws; rounded up, at least 1."""
        distinct = expected_distinct(self.probabilities, self.draws(error))
        # Sums of probabilities that round above a whole number are that number.
        return int(np.clip(np.ceil(distinct - 1e-9), 1, len(self.sensitivities)))

    def error(self, kept: int) -> float:
        """The smallest relative error for which no more than ``kept`` units are asked for.

        Args:
            kept: Units, at least 1.

        Returns:
            0.0 where all units are kept, for then nothing is approximated. It can be far above 1,
            where the bound says nothing any more.
        """
        if kept >= len(self.sensitivities):
            return 0.0
        low, high = np.log(_ERRORS)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (
                (low, middle) if self.kept(float(np.exp(middle))) <= kept else (middle, high)
            )
        return float(np.exp(high))


def expected_distinct(probabilities: NDArray[np.float64], draws: float) -> float:
    """Units that are expected to be drawn at least once: sum of 1 - (1 - p)^m."""
    with np.errstate(divide="ignore"):
        never = draws * np.log1p(-np.minimum(probabilities, 1.0))
    return float(-np.expm1(never).sum())


def draws_for(probabilities: NDArray[np.float64], kept: int) -> float:
    """Draws after which ``kept`` different units are expected; infinite for all of them.

    Args:
        probabilities: Of the units, float64 [units].
        kept: Units, in 1..units.
    """
    if kept >= int(np.count_nonzero(probabilities)):
        return float("inf")
    low, high = 0.0, 1.0
    while expected_distinct(probabilities, high) < kept:
        high *= 2.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = expected_distinct(probabilities, middle) >= kept
        low, high = (low, middle) if enough else (middle, high)
    return high


def calibration_size(outputs: int, widest: int, available: int, failure: float = FAILURE) -> int:
    """Images from which sensitivities are taken: ceil(C log(8 widest outputs / delta)).

    Args:
        outputs: Channels of all layers together.
        widest: Channels of the widest layer.
        available: Calibration images; at most half of them are taken, as in the authors' code.
        failure: Delta, in (0, 1).
    """
    wanted = int(np.ceil(_C * np.log(8.0 * widest * outputs / failure)))
    return max(1, min(wanted, available // 2))
