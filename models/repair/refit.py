"""Refitting the weights of one layer to what it should compute from what it reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .held_out import RIDGES, smallest_good
from .moments import RIDGE
from .rectify import FlatParts
from .ridge import RidgeRegression

__all__ = ["refit_weights"]


def refit_weights(
    weight: Tensor,
    patches: Tensor,
    wanted: Tensor,
    metrics: Sequence[Tensor | None],
    intercept: bool,
    flat: FlatParts | None,
    rounds: int,
    judged: Tensor | None = None,
) -> Tensor:
    """Regress a layer's weights, group of its convolution by group, in place.

    Args:
        weight: float32 [outputs, C of one group, *kernel]; shrunk towards, and overwritten.
        patches: What the layer reads, float32 or bfloat16 [rows, kernel positions, C].
        wanted: What it should compute from that, float32 [rows, outputs].
        metrics: For each group the trusted second moments of its patches, float32 [D, D] with D
            going over channels faster than over positions; None for none.
        intercept: Whether there is an offset; otherwise it is zero.
        flat: Where its outputs make no difference; None if they always do.
        rounds: How often targets on flat parts are chosen anew.
        judged: Rows of images that choose the ridge, by which the others are fitted before all of
            them are, bool [rows]; None to take the usual ridge.

    Returns:
        Offsets, float32 [outputs].
    """
    parts, size = len(metrics), weight.shape[1]
    count = len(weight) // parts
    offsets = []
    for part, metric in enumerate(metrics):
        rows = slice(part * count, (part + 1) * count)
        vectors = patches[:, :, part * size : (part + 1) * size].flatten(1)
        by_position = weight[rows].reshape(count, size, -1).transpose(1, 2)
        prior, ridge = by_position.flatten(1), RIDGE
        if judged is not None:
            ridge = _best_ridge(vectors, wanted[:, rows], prior, intercept, metric, judged)
        regression = RidgeRegression(vectors, prior, intercept, metric, ridge)
        fitted, offset = regression.fit(wanted[:, rows])
        if flat is not None:
            for _ in range(rounds):
                computed = regression.predict(fitted, offset)
                fitted, offset = regression.fit(flat[rows].nearest(wanted[:, rows], computed))
        weight[rows] = fitted.view(by_position.shape).transpose(1, 2).reshape(weight[rows].shape)
        offsets.append(offset)
    return torch.cat(offsets)


def _best_ridge(
    vectors: Tensor,
    wanted: Tensor,
    prior: Tensor,
    intercept: bool,
    metric: Tensor | None,
    judged: Tensor,
) -> float:
    """The ridge with which a fit to the other rows is best on those that judge."""
    errors = []
    for ridge in RIDGES:
        regression = RidgeRegression(vectors[~judged], prior, intercept, metric, ridge)
        weight, offset = regression.fit(wanted[~judged])
        missed = wanted[judged] - offset - vectors[judged].float() @ weight.mT
        errors.append(float(missed.square().mean()))
    return RIDGES[smallest_good(errors)]
