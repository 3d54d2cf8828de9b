"""Rewards of candidates that were not evaluated, learned from those that were."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

__all__ = ["LearnedReward", "RewardKernel"]

# Kernel matrices grow with the square; what was asked for last is nearest to what comes next.
_MOST = 500
_MOST_FITTED = 250
# The kernel is fitted anew when there are so many times as many candidates.
_GROWTH = 1.4
_FIRST = 8
_DEVIATIONS = 1.0


class RewardKernel:
    """The covariance of rewards, fitted now and then.

    Which candidates it is fitted to depends only on how many there are, so that a restored search
    goes on with the same one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._fitted: Kernel | None = None

    def fit(
        self, candidates: NDArray[np.int64], rewards: NDArray[np.float64], sizes: NDArray[np.int64]
    ) -> Kernel:
        """The kernel for these candidates.

        Args:
            candidates: At least one, in the order they were asked for; the same ones first in
                every call. int64 [N, D].
            rewards: Rewards of these candidates, finite, float64 [N].
            sizes: Values of the dense network, int64 [D].
        """
        count = _FIRST
        while int(count * _GROWTH) <= len(candidates):
            count = int(count * _GROWTH)
        count = min(count, len(candidates))
        if self._fitted is None or count != self._count:
            part = slice(max(0, count - _MOST_FITTED), count)
            self._fitted = _fit_kernel(candidates[part], rewards[part], sizes)
            self._count = count
        return self._fitted


class LearnedReward:
    """A Gaussian process over rewards (Rasmussen & Williams 2006, equations 2.25 and 2.26).

    Its covariance is Matérn's with nu = 3/2 and a length for every decision (equation 4.17 there),
    of the logarithm of values, because one more changes a small value more than a large one. What
    it predicts is the logarithm of how far a reward lags behind the best, plus half the median
    lag, so that the best are told apart however bad the worst are (both our choice).

    Args:
        candidates: Evaluated candidates in the order they were asked for, at least one; the last
            500 count. int64 [N, D].
        rewards: Theirs, finite, float64 [N].
        sizes: Values of the dense network, int64 [D].
        kernel: From `RewardKernel`.
    """

    def __init__(
        self,
        candidates: NDArray[np.int64],
        rewards: NDArray[np.float64],
        sizes: NDArray[np.int64],
        kernel: Kernel,
    ) -> None:
        candidates, rewards = candidates[-_MOST:], rewards[-_MOST:]
        self._sizes = sizes
        self._scale = _LagScale(rewards)
        self._process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
        self._process.fit(_places(candidates, sizes), self._scale.from_rewards(rewards))

    def predict(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rewards of candidates int64 [N, D], float64 [N]."""
        return self._scale.to_rewards(self._process.predict(_places(candidates, self._sizes)))

    def upper_bounds(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """What rewards may well be: one standard deviation above the prediction, float64 [N].

        To compare candidates by (GP-UCB of Srinivas et al. 2010, with a constant of our choice).

        Args:
            candidates: int64 [N, D].
        """
        mean, std = self._process.predict(_places(candidates, self._sizes), return_std=True)
        return self._scale.to_rewards(mean + _DEVIATIONS * std)


class _LagScale:
    """Minus the logarithm of how far rewards lag behind the best of them."""

    def __init__(self, rewards: NDArray[np.float64]) -> None:
        self._best = float(rewards.max())
        half_median = 0.5 * float(np.median(self._best - rewards))
        self._offset = max(half_median, 1e-9 * max(1.0, abs(self._best)))

    def from_rewards(self, rewards: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(-np.log(self._best - rewards + self._offset))

    def to_rewards(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._best + self._offset - np.exp(-values))


def _places(candidates: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.log2(candidates + 1.0) / np.log2(sizes + 1.0))


def _fit_kernel(
    candidates: NDArray[np.int64], rewards: NDArray[np.float64], sizes: NDArray[np.int64]
) -> Kernel:
    lengths = Matern(np.ones(len(sizes)), (0.05, 20.0), nu=1.5)
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * lengths + WhiteKernel(1e-2, (1e-5, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        # A parameter at its bound is an answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(_places(candidates, sizes), _LagScale(rewards).from_rewards(rewards))
    fitted: Kernel = process.kernel_
    return fitted
