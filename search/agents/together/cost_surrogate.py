"""One cost that only evaluations reveal, learned from the candidates evaluated so far."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ....envs.past import Past

__all__ = ["MOST_LEARNED", "LearnedCost"]

# Hardware computes channels in blocks, so that costs depend on a value's rounding and remainder.
_BLOCKS = (1, 2, 4, 8, 16, 32)
_REMAINDERS = (2, 4, 8)
_NOISES = (1e-6, 1e-4, 1e-2, 1e-1)
_FEWEST = 8
# A model that explains less of the variance is not worth following.
_EXPLAINED = 0.8
_RISING = 0.75

MOST_LEARNED = 1000
"""Candidates that a cost is learned from: kernel matrices grow with the square of their number,
and what was asked for last is nearest to what comes next."""


class LearnedCost:
    """An additive model of one cost: a sum of one table per decision (our choice).

    A Gaussian process (Rasmussen & Williams 2006, equation 2.25) whose covariance of two
    candidates is a sum over decisions: linear in the values, one term for every block size of which
    both values round up to the same multiple, and one for every divisor that leaves both the same
    remainder. Being a sum over decisions, its mean is one too, so predictions are looked up. Of a
    few levels of noise it takes the one whose predictions of each candidate from all others err
    least (section 5.4.2 there).

    Args:
        candidates: Evaluated candidates, int64 [N, D].
        costs: Theirs, finite, float64 [N].
        sizes: Values of the dense network, int64 [D].

    Attributes:
        error: Root mean square of those errors, in fractions of dense.
        explained: Share of the costs' variance that such predictions explain, at most 1.
        grows: Whether it grows with the values: of all that predictions change on the way from
            the narrowest to the dense network through uniform ones, at least three quarters are
            rises (our choice).
    """

    def __init__(
        self, candidates: NDArray[np.int64], costs: NDArray[np.float64], sizes: NDArray[np.int64]
    ) -> None:
        self._mean = float(costs.mean())
        spread = max(float(costs.std()), 1e-12)
        centred = (costs - self._mean) / spread
        kernels = [_kernel(int(size)) for size in sizes]
        covariance = np.zeros((len(candidates), len(candidates)))
        for kernel, column in zip(kernels, candidates.T, strict=True):
            covariance += kernel[np.ix_(column, column)]
        errors, weights = zip(*(_fit(covariance, centred, noise) for noise in _NOISES), strict=True)
        best = int(np.argmin(errors))
        self.error = spread * float(errors[best])
        self.explained = 1.0 - float(errors[best]) ** 2
        self._tables = [
            spread * (kernel[:, column] @ weights[best])
            for kernel, column in zip(kernels, candidates.T, strict=True)
        ]
        share = np.linspace(0.0, 1.0, int(sizes.max()) + 1)[1:, None]
        changes = np.diff(self.predict(np.maximum(1, np.rint(share * sizes)).astype(np.int64)))
        self.grows = bool(changes.clip(min=0).sum() > _RISING * np.abs(changes).sum())

    @classmethod
    def of_past(cls, past: Past, name: str, sizes: NDArray[np.int64]) -> LearnedCost | None:
        """The model of a cost, or ``None`` while too little of it is known or understood.

        Args:
            past: What was evaluated.
            name: Name of the cost.
            sizes: As for the class.
        """
        costs = past.costs(name)
        known = np.flatnonzero(np.isfinite(costs))[-MOST_LEARNED:]
        if len(known) < _FEWEST:
            return None
        model = cls(past.candidates[known], costs[known], sizes)
        return model if model.explained >= _EXPLAINED else None

    def predict(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Costs of candidates int64 [N, D] as fractions of the dense network's, float64 [N]."""
        parts = [table[column] for table, column in zip(self._tables, candidates.T, strict=True)]
        return np.asarray(self._mean + np.sum(parts, axis=0))


@cache
def _kernel(size: int) -> NDArray[np.float64]:
    """Covariance of what two values of a decision contribute, float64 [size + 1, size + 1]."""
    value = np.arange(size + 1)
    share = value / size
    kernel = 4.0 * np.outer(share, share)
    for block in _BLOCKS:
        rounded = -(-value // block)
        kernel += (rounded[:, None] == rounded) / len(_BLOCKS)
    for divisor in _REMAINDERS:
        kernel += ((value % divisor)[:, None] == value % divisor) / len(_REMAINDERS)
    return kernel


def _fit(
    covariance: NDArray[np.float64], values: NDArray[np.float64], noise: float
) -> tuple[float, NDArray[np.float64]]:
    """Root mean square error of leaving one out, and the weights of the values."""
    count = len(values)
    noisy = covariance + noise * np.trace(covariance) / count * np.eye(count)
    inverse = cho_solve(cho_factor(noisy), np.eye(count))
    weights = inverse @ values
    return float(np.sqrt(np.mean((weights / np.diag(inverse)) ** 2))), weights
