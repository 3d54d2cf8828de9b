"""Regressions of full repair: weights near those that a layer has, and an intercept."""

from __future__ import annotations

import torch
from torch import Tensor

from .quick import covariance_with_ridge

__all__ = ["ridge_regression"]

_RIDGE = 1e-3
_GRAM_BLOCK = 96


def ridge_regression(
    vectors: Tensor, wanted: Tensor, prior: Tensor, intercept: bool, metric: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weights and offsets that map vectors to what is wanted, near weights that there are.

    They minimise E |wanted - V z - b|^2 + E |(V - prior) x|^2 + ridge |V - prior|^2, with
    ``metric`` the second moments of x.

    Args:
        vectors: z, float32 [rows, D].
        wanted: float32 [rows, outputs].
        prior: float32 [outputs, D].
        intercept: Whether there is an offset b; otherwise it is zero.
        metric: float32 [D, D], positive semidefinite; None for zero.

    Returns:
        Weights, float32 [outputs, D], and offsets, float32 [outputs].
    """
    mean_in = vectors.mean(dim=0) if intercept else vectors.new_zeros(vectors.shape[1])
    mean_out = wanted.mean(dim=0) if intercept else wanted.new_zeros(wanted.shape[1])
    # Products of float32 accumulate enough digits; the solve itself needs float64.
    centred = vectors - mean_in
    covariance = _gram(centred).double() / len(vectors)
    cross = (centred.mT @ (wanted - mean_out)).double() / len(vectors)
    missed = cross - covariance @ prior.mT.double()
    regular = covariance_with_ridge(covariance, _RIDGE)
    if metric is not None:
        regular = regular + metric
    change = torch.cholesky_solve(missed, torch.linalg.cholesky(regular)).mT.float()
    weight = prior + change
    return weight, mean_out - weight @ mean_in


def _gram(vectors: Tensor) -> Tensor:
    """``vectors.mT @ vectors`` [D, D], computing each pair of column blocks once."""
    columns = vectors.shape[1]
    if columns <= _GRAM_BLOCK:
        return vectors.mT @ vectors
    product = vectors.new_empty(columns, columns)
    for start in range(0, columns, _GRAM_BLOCK):
        rows = slice(start, start + _GRAM_BLOCK)
        block = vectors[:, rows].mT @ vectors[:, start:]
        product[rows, start:] = block
        product[start:, rows] = block.mT
    return product
