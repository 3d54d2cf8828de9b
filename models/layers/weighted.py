"""What convolutions and linear layers have in common: a weight and a bias to slim."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from .adapter import Channels

__all__ = ["slim_weights"]

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
