"""BatchNorm folded into the layers before it, for inference."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from ..copying import shallow_copy
from ..layers import averager_of, multiplier_of

__all__ = ["fold_batchnorm"]


def fold_batchnorm(network: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """A copy whose BatchNorm layers are folded into the layers before them, for inference only.

    Args:
        network: In evaluation mode; it is not changed.
        norms: BatchNorm that directly follows a layer, by layer name. Others stay.
    """
    modules = dict(network.named_modules())
    layer_of = {norm: layer for layer, norm in norms.items()}

    def fold(name: str, module: nn.Module) -> nn.Module | None:
        if name in layer_of:
            return nn.Identity()
        if name not in norms:
            return None
        norm = modules[norms[name]]
        layer, averager = multiplier_of(module), averager_of(norm)
        weight, bias = layer.weight(module), layer.bias(module)
        scale, mean = averager.scale(norm), averager.mean(norm)
        shift = (-mean if bias is None else bias - mean) * scale + averager.shift(norm)
        scaled = weight.float() * scale.view(-1, *(1,) * (weight.dim() - 1))
        duplicate = copy.copy(module)
        duplicate._parameters = {
            "weight": nn.Parameter(scaled.to(weight.dtype), requires_grad=False),
            "bias": nn.Parameter(shift.to(weight.dtype), requires_grad=False),
        }
        return duplicate

    return shallow_copy(network, fold)
