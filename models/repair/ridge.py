"""Regressions of repairs: weights near those that a layer has, and an intercept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .moments import RIDGE, covariance_with_ridge

__all__ = ["RidgeRegression"]

_GRAM_BLOCK = 96


class RidgeRegression:
    """Fits weights and offsets that map vectors to what is wanted, near weights that there are.

    They minimise E |wanted - V z - b|^2 + E |(V - prior) x|^2 + ridge |V - prior|^2, with
    ``metric`` the second moments of x. Fitting other targets to the same vectors costs little.

    Args:
        vectors: z, float32 or bfloat16 [rows, D]; with bfloat16, what they are multiplied by is
            rounded to it, and products are summed in float32.
        prior: float32 [outputs, D].
        intercept: Whether there is an offset b; otherwise it is zero.
        metric: float32 [D, D], positive semidefinite; None for zero.
        ridge: As a share of the mean variance of a column.
    """

    def __init__(
        self,
        vectors: Tensor,
        prior: Tensor,
        intercept: bool,
        metric: Tensor | None,
        ridge: float = RIDGE,
    ) -> None:
        self._in_bf16 = vectors.dtype == torch.bfloat16
        self._prior = prior
        self._intercept = intercept
        vectors = vectors.float()
        mean = vectors.mean(dim=0) if intercept else torch.zeros(vectors.shape[1])
        # Centred vectors lose no digits, but would not be numbers of bfloat16 any more.
        self._shift = torch.zeros_like(mean) if self._in_bf16 else mean
        self._vectors = vectors if self._in_bf16 else vectors - mean
        self._mean = mean
        with _products(self._in_bf16):
            moments = _gram(self._vectors) / len(vectors)
        left = (mean - self._shift).double()
        # Products of float32 accumulate enough digits; the solve itself needs float64.
        self._covariance = moments.double() - torch.outer(left, left)
        regular = covariance_with_ridge(self._covariance, ridge)
        if metric is not None:
            regular = regular + metric
        self._factor = torch.linalg.cholesky(regular)

    def fit(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Solve for one target.

        Args:
            wanted: float32 [rows, outputs].

        Returns:
            Weights, float32 [outputs, D], and offsets, float32 [outputs].
        """
        mean = wanted.mean(dim=0) if self._intercept else torch.zeros(wanted.shape[1])
        with _products(self._in_bf16):
            cross = (self._vectors.mT @ (wanted - mean)).double() / len(wanted)
        missed = cross - self._covariance @ self._prior.mT.double()
        weight = self._prior + torch.cholesky_solve(missed, self._factor).mT.float()
        return weight, mean - weight @ self._mean

    def predict(self, weight: Tensor, offset: Tensor) -> Tensor:
        """What such weights and offsets make of the vectors, float32 [rows, outputs]."""
        with _products(self._in_bf16):
            return torch.addmm(offset + weight @ self._shift, self._vectors, weight.mT)


@contextmanager
def _products(in_bf16: bool) -> Iterator[None]:
    """Lets matrix products of float32 tensors be of their values in bfloat16."""
    settings: Any = torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    if in_bf16:
        settings.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.matmul.fp32_precision = before


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
