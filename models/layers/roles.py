"""What repairs and criteria ask of layers that multiply, and of those that average."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from .adapter import AnyLayer, LayerAdapter, adapter_of
from .sites import Sites

__all__ = ["AveragingAdapter", "MultiplyingAdapter", "averager_of", "multiplier_of"]


class MultiplyingAdapter(LayerAdapter[AnyLayer]):
    """Of a layer whose outputs are weighted sums of what it reads; see ``multiplies``."""

    multiplies: ClassVar[bool] = True

    def weight(self, layer: AnyLayer) -> Tensor:
        """Its weight, [outputs, inputs of one part, *kernel]."""
        return layer.get_parameter("weight")

    def bias(self, layer: AnyLayer) -> Tensor | None:
        """Its bias, [outputs]; None where it has none."""
        return layer._parameters.get("bias")

    def parts(self, layer: AnyLayer) -> int:
        """Groups of inputs and outputs that know nothing of each other, of one size each."""
        return 1

    @abstractmethod
    def patches(self, layer: AnyLayer, inputs: Tensor, sites: Sites) -> Tensor:
        """What the layer multiplies to compute its outputs at some places.

        Args:
            layer: The layer.
            inputs: What it reads, float [n, ...].
            sites: Places of its output map.

        Returns:
            float [rows, kernel positions, C].
        """

    @abstractmethod
    def outputs_at(self, values: Tensor, sites: Sites) -> Tensor:
        """Vectors [rows, C] of its output, or of something of the same shape, at some places."""


class AveragingAdapter(LayerAdapter[AnyLayer]):
    """Of a layer that normalises each channel with running statistics; see ``averages``."""

    averages: ClassVar[bool] = True

    @abstractmethod
    def mean(self, layer: AnyLayer) -> Tensor:
        """What is taken away from each channel, [C]: a buffer, to be changed in place."""

    @abstractmethod
    def scale(self, layer: AnyLayer) -> Tensor:
        """What each channel is multiplied by, [C]."""

    @abstractmethod
    def shift(self, layer: AnyLayer) -> Tensor:
        """What is added in the end, [C]."""

    @abstractmethod
    def is_adjustable(self, layer: AnyLayer) -> bool:
        """Whether it has a scale and a shift of its own, and averages over images."""

    @abstractmethod
    def rescale(self, layer: AnyLayer, scale: Tensor, shift: Tensor) -> None:
        """Multiply what it writes by ``scale`` [C] and add ``shift`` [C], in place."""


def multiplier_of(layer: nn.Module) -> MultiplyingAdapter[nn.Module]:
    """The adapter of a layer that multiplies.

    Raises:
        TypeError: If it does not.
    """
    adapter = adapter_of(layer)
    if not isinstance(adapter, MultiplyingAdapter):
        raise TypeError(f"{type(layer).__name__} does not multiply")
    return adapter


def averager_of(layer: nn.Module) -> AveragingAdapter[nn.Module]:
    """The adapter of a layer that averages.

    Raises:
        TypeError: If it does not.
    """
    adapter = adapter_of(layer)
    if not isinstance(adapter, AveragingAdapter):
        raise TypeError(f"{type(layer).__name__} does not average")
    return adapter
