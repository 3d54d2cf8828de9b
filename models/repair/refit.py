"""Refitting the weights of one layer to what it should compute from what it reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
        regression = RidgeRegression(vectors, by_position.flatten(1), intercept, metric)
        fitted, offset = regression.fit(wanted[:, rows])
        if flat is not None:
            for _ in range(rounds):
                computed = regression.predict(fitted, offset)
                fitted, offset = regression.fit(flat[rows].nearest(wanted[:, rows], computed))
        weight[rows] = fitted.view(by_position.shape).transpose(1, 2).reshape(weight[rows].shape)
        offsets.append(offset)
    return torch.cat(offsets)
