"""Regressions on the first columns of a ranking, all from one factorisation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NestedRegression"]


class NestedRegression:
    """Least squares on any number of the best-ranked columns, at the cost of a triangular solve.

    With the columns in the order of the ranking, the Cholesky factor L of a covariance holds, in
    its leading blocks, the factors of all leading blocks of that covariance. With S the columns
    that stay and R the others,

        W' = W_S + W_R L_RS L_SS^-1,

    which equals W Sigma_.S Sigma_SS^-1 (our choice of form: with nothing removed nothing changes,
    whatever the rounding).

    Args:
        matrix: Weights on all columns, float64 [rows, D].
        covariance: Of the columns, with ridge, float64 [D, D], positive definite.
        order: Columns, the one that stays longest first, int64 [D].
    """

    def __init__(self, matrix: Tensor, covariance: Tensor, order: Tensor) -> None:
        # A triangular solve with the factor loses half the digits that one with the covariance
        # would lose, so float32 is enough from here on.
        self._factor = torch.linalg.cholesky(covariance[order][:, order]).float()
        self._matrix = matrix[:, order].float()

    def solve(self, columns: int) -> Tensor:
        """Weights on the first ``columns`` of the ranking, in its order: float32 [rows, S]."""
        kept = self._factor[:columns, :columns]
        below = self._factor[columns:, :columns]
        lost = self._matrix[:, columns:] @ below
        correction = torch.linalg.solve_triangular(kept, lost, upper=False, left=False)
        return self._matrix[:, :columns] + correction
