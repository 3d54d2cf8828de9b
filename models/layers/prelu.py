"""PReLU: a rectifier with a learned slope for each channel, or one for all."""

from __future__ import annotations

from torch import nn

from .adapter import Channels, LayerAdapter, LayerFacts, own_copy, register

__all__ = ["PReLUAdapter"]


class PReLUAdapter(LayerAdapter[nn.PReLU]):
    """Slopes stay and go with their channels."""

    def passes_all(self, layer: nn.PReLU) -> bool:
        """One slope for all channels does not know how many there are."""
        return layer.num_parameters == 1

    def channels(self, layer: nn.PReLU) -> tuple[int, int]:
        """What it reads is what it writes."""
        return layer.num_parameters, layer.num_parameters

    def facts(self, layer: nn.PReLU) -> LayerFacts | None:
        """Its row of a cost table; none where channels make no difference to it."""
        return None if self.passes_all(layer) else LayerFacts(kind="activation", bias=True)

    def slim(self, layer: nn.PReLU, outputs: Channels | None, inputs: Channels | None) -> nn.PReLU:
        """A PReLU of fewer channels."""
        slimmed = own_copy(layer, outputs)
        if outputs is not None:
            slimmed.num_parameters = len(outputs)
        return slimmed


register(nn.PReLU, PReLUAdapter())
