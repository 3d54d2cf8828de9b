"""Layers that share a weight: changing one would change the other."""

from __future__ import annotations

from torch import nn

__all__ = ["tied_layers"]


def tied_layers(network: nn.Module) -> dict[str, str]:
    """Modules that have a parameter in common with another module.

    Args:
        network: Any network. One module under two names is not tied, but the same.

    Returns:
        By name, the name of the other module.
    """
    owners: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), name)
            if other != name:
                tied[name] = other
                tied.setdefault(other, name)
    return tied
