"""The shortcuts that evaluations take: how a network is run faster than it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .folding import fold_batchnorm
from .fused import InferencePlan, plan_inference
from .precision import cast_network, place_images

__all__ = ["FastInference", "Shortcuts"]


@dataclass(frozen=True)
class Shortcuts:
    """Which shortcuts are taken; plain data that all evaluators of a run are told.

    Attributes:
        precision: Of weights and images.
        channels_last: Whether weights and images lie in memory channels last.
        folds: Whether BatchNorm is folded into the layers before it.
        fuses: Whether convolutions take over what follows them, on the processor.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    folds: bool = True
    fuses: bool = True


class FastInference:
    """Runs any candidate of one network with the shortcuts that are taken.

    Args:
        dense: The dense network, in evaluation mode; it is not changed.
        norms: BatchNorm that directly follows a layer, by layer name.
        shortcuts: Which are taken.
        device: Where networks are run.
    """

    def __init__(
        self,
        dense: nn.Module,
        norms: Mapping[str, str],
        shortcuts: Shortcuts,
        device: torch.device,
    ) -> None:
        self.shortcuts = shortcuts
        self.device = device
        self._norms = norms if shortcuts.folds else {}
        self._plan: InferencePlan | None = None
        if shortcuts.fuses and device.type == "cpu":
            with torch.inference_mode():
                self._plan = plan_inference(self.fold(self.cast(dense)))

    def images(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] as networks read them that were cast."""
        precision, channels_last = self.shortcuts.precision, self.shortcuts.channels_last
        return place_images(images, precision, self.device, channels_last)

    def cast(self, network: nn.Module) -> nn.Module:
        """A copy on the device, in the precision and the memory format that are taken."""
        precision, channels_last = self.shortcuts.precision, self.shortcuts.channels_last
        return cast_network(network, precision, self.device, channels_last)

    def fold(self, network: nn.Module) -> nn.Module:
        """A network that was cast, with BatchNorm folded where that is done."""
        return fold_batchnorm(network, self._norms)

    def fuse(self, folded: nn.Module) -> nn.Module | None:
        """The same with fused convolutions, which nothing can listen to; None where none are."""
        return None if self._plan is None else self._plan.prepare(folded)
