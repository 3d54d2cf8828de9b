"""InstanceNorm of images: every channel of every image is normalised by itself."""

from __future__ import annotations

from torch import nn

from .adapter import Channels, LayerAdapter, LayerFacts, own_copy, register

__all__ = ["InstanceNormAdapter"]


class InstanceNormAdapter(LayerAdapter[nn.InstanceNorm2d]):
    """With or without an affine map and running statistics."""

    def channels(self, layer: nn.InstanceNorm2d) -> tuple[int, int]:
        """What it reads is what it writes."""
        return layer.num_features, layer.num_features

    def facts(self, layer: nn.InstanceNorm2d) -> LayerFacts:
        """Its row of a cost table."""
        return LayerFacts(kind="norm", bias=layer.affine)

    def slim(
        self, layer: nn.InstanceNorm2d, outputs: Channels | None, inputs: Channels | None
    ) -> nn.InstanceNorm2d:
        """An InstanceNorm of fewer channels."""
        slimmed = own_copy(layer, outputs)
        if outputs is not None:
            slimmed.num_features = len(outputs)
        return slimmed


register(nn.InstanceNorm2d, InstanceNormAdapter())
