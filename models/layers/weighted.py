"""What convolutions and linear layers have in common: a weight and a bias to slim."""

from __future__ import annotations

import copy
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .adapter import Channels

__all__ = ["scale_columns", "slim_weights"]

Weighted = TypeVar("Weighted", nn.Conv2d, nn.Linear)


def slim_weights(layer: Weighted, rows: Channels | None, columns: Channels | None) -> Weighted:
    """A copy with some of the weights; the sizes that are written on the layer stay.

    Args:
        layer: The layer.
        rows: Entries of the weight's first axis, and of the bias, that stay; None for all.
        columns: Entries of the weight's second axis that stay; None for all.
    """
    weight = layer.weight.detach()
    if rows is not None:
        weight = weight[torch.from_numpy(rows)]
    if columns is not None:
        weight = weight[:, torch.from_numpy(columns)]
    duplicate = copy.copy(layer)
    duplicate._buffers = dict(layer._buffers)
    duplicate._parameters = dict(layer._parameters)
    duplicate._parameters["weight"] = nn.Parameter(weight.clone(), requires_grad=False)
    if layer.bias is not None:
        bias = layer.bias.detach()
        duplicate._parameters["bias"] = nn.Parameter(
            (bias if rows is None else bias[torch.from_numpy(rows)]).clone(), requires_grad=False
        )
    return duplicate


def scale_columns(layer: nn.Module, columns: Channels, factors: NDArray[np.float64]) -> None:
    """Multiply entries of the weight's second axis in place.

    Args:
        layer: A layer with a ``weight`` of its own, [outputs, columns, ...].
        columns: Entries, int64 [n]; entries that are named twice have one factor.
        factors: Theirs, float64 [n].
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    each = torch.ones(weight.shape[1], dtype=torch.float64)
    each[torch.from_numpy(columns)] = torch.from_numpy(factors)
    with torch.no_grad():
        weight.mul_(each.to(weight).view(1, -1, *(1,) * (weight.dim() - 2)))
