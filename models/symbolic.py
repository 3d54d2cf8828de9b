"""Networks as graphs of their calls, where they can be had."""

from __future__ import annotations

from torch import fx, nn

from .layers import is_unaltered
from .zoo.shortcut import PadShortcut

__all__ = ["trace"]


class _LeafTracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) is PadShortcut or super().is_leaf_module(module, qualified_name)


def trace(network: nn.Module) -> fx.Graph | None:
    """The calls that a forward pass consists of.

    Args:
        network: Any network.

    Returns:
        Its graph, or None where it cannot be traced symbolically.
    """
    if not is_unaltered(network):
        # Tracing begins inside the network, and would not see what was put in its way.
        return None
    try:
        return _LeafTracer().trace(network)
    except Exception:  # control flow that depends on data, and whatever else tracing refuses
        return None
