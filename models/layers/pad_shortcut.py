"""The zero-padding shortcut of CIFAR ResNets."""

from __future__ import annotations

import copy

import numpy as np

from ..zoo.shortcut import PadShortcut
from .adapter import Channels, LayerAdapter, register

__all__ = ["PadShortcutAdapter"]


class PadShortcutAdapter(LayerAdapter[PadShortcut]):
    """Copies some channels; its two sides are decided independently of each other."""

    def channels(self, layer: PadShortcut) -> tuple[int, int]:
        """Channels of the output and of the input."""
        return layer.out_channels, layer.in_channels

    def facts(self, layer: PadShortcut) -> None:
        """None: it has no weights and no FLOPs."""

    def slim(
        self, layer: PadShortcut, outputs: Channels | None, inputs: Channels | None
    ) -> PadShortcut:
        """A shortcut that copies what is left on both sides."""
        kept_in = np.arange(layer.in_channels) if inputs is None else inputs
        kept_out = np.arange(layer.out_channels) if outputs is None else outputs
        position = {int(channel): place for place, channel in enumerate(kept_in)}
        position[-1] = -1
        slimmed = copy.copy(layer)
        slimmed.in_channels = len(kept_in)
        slimmed.source = tuple(position.get(layer.source[channel], -1) for channel in kept_out)
        return slimmed

    def ignore(
        self, layer: PadShortcut, outputs: Channels | None, inputs: Channels | None
    ) -> PadShortcut:
        """Copy zeros in place of inputs that are removed."""
        if inputs is not None:
            lost = set(inputs.tolist())
            layer.source = tuple(-1 if channel in lost else channel for channel in layer.source)
        return layer

    def makes_channels(self, layer: PadShortcut) -> bool:
        """True: its outputs can be removed without its inputs."""
        return True


register(PadShortcut, PadShortcutAdapter())
