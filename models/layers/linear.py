"""Linear layers."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .adapter import Channels, LayerFacts, register
from .roles import MultiplyingAdapter
from .sites import Sites
from .weighted import scale_columns, slim_weights

__all__ = ["LinearAdapter"]


class LinearAdapter(MultiplyingAdapter[nn.Linear]):
    """Applied to vectors, or at every position of [n, ..., C]."""

    channel_axis = -1

    def channels(self, layer: nn.Linear) -> tuple[int, int]:
        """Output and input features."""
        return layer.out_features, layer.in_features

    def facts(self, layer: nn.Linear) -> LayerFacts:
        """Its row of a cost table."""
        return LayerFacts(kind="linear", bias=layer.bias is not None)

    def slim(
        self, layer: nn.Linear, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Linear:
        """A linear layer of fewer features."""
        slimmed = slim_weights(layer, outputs, inputs)
        slimmed.out_features, slimmed.in_features = slimmed.weight.shape
        return slimmed

    def ignore(
        self, layer: nn.Linear, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Module:
        """Zero the weights of inputs that are removed."""
        if inputs is not None:
            with torch.no_grad():
                layer.weight[:, inputs] = 0
        return layer

    def scale_inputs(
        self, layer: nn.Linear, inputs: Channels, factors: NDArray[np.float64]
    ) -> None:
        """Scale columns of the weight."""
        scale_columns(layer, inputs, factors)

    def patches(self, layer: nn.Linear, inputs: Tensor, sites: Sites) -> Tensor:
        """Vectors of ``inputs`` [n, ..., C], as a kernel of one position."""
        return self.outputs_at(inputs, sites)[:, None]

    def outputs_at(self, values: Tensor, sites: Sites) -> Tensor:
        """Vectors of ``values`` [n, ..., C], all positions of which count as rows of the map."""
        return values.reshape(len(values), -1, values.shape[-1])[sites.image, sites.row]

    def map_size(self, values: Tensor) -> tuple[int, int]:
        """All positions of ``values`` [n, ..., C] count as height."""
        return math.prod(values.shape[1:-1]), 1

    def blank_input(self, layer: nn.Linear, channels: int, size: tuple[int, int]) -> Tensor:
        """Zeros [1, positions, C]."""
        return torch.zeros(1, size[0], channels)


register(nn.Linear, LinearAdapter())
