"""GroupNorm: groups of neighbouring channels are normalised together."""

from __future__ import annotations

from torch import nn

from .adapter import Channels, LayerAdapter, LayerFacts, own_copy, register

__all__ = ["GroupNormAdapter"]


class GroupNormAdapter(LayerAdapter[nn.GroupNorm]):
    """Groups stay or go as a whole, so what is left is normalised as it was before."""

    def channels(self, layer: nn.GroupNorm) -> tuple[int, int]:
        """What it reads is what it writes."""
        return layer.num_channels, layer.num_channels

    def facts(self, layer: nn.GroupNorm) -> LayerFacts:
        """Its row of a cost table."""
        return LayerFacts(kind="norm", bias=layer.affine)

    def inseparable(self, layer: nn.GroupNorm) -> int:
        """Channels of one group."""
        return layer.num_channels // layer.num_groups

    def slim(
        self, layer: nn.GroupNorm, outputs: Channels | None, inputs: Channels | None
    ) -> nn.GroupNorm:
        """A GroupNorm of fewer groups of the same size."""
        slimmed = own_copy(layer, outputs)
        if outputs is not None:
            slimmed.num_channels = len(outputs)
            slimmed.num_groups = len(outputs) // self.inseparable(layer)
        return slimmed


register(nn.GroupNorm, GroupNormAdapter())
