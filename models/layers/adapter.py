"""What there is to know about one kind of layer, and where to look it up."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..costs.tables import LayerKind
from ..hooks import has_foreign_hooks

__all__ = [
    "Channels",
    "LayerAdapter",
    "LayerFacts",
    "adapter_of",
    "averages",
    "description",
    "is_unaltered",
    "multiplies",
    "own_copy",
    "register",
]

Channels = NDArray[np.int64]
"""Channels of one side of a layer, ascending int64."""

AnyLayer = TypeVar("AnyLayer", bound=nn.Module)


@dataclass(frozen=True)
class LayerFacts:
    """What a cost table says of a layer besides its channels and map sizes.

    Attributes:
        kind: Convolution, depthwise convolution, linear, normalisation or activation layer.
        kernel: Kernel height and width; (1, 1) where there is no kernel.
        stride: Stride along the height; 1 where there is none.
        groups: Convolution groups; 1 for a depthwise convolution, whose kind says it all.
        bias: Whether it has a bias (for a normalisation layer: whether it has an affine map; for an
            activation: whether each channel has a learnable number).
    """

    kind: LayerKind
    bias: bool
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1


class LayerAdapter(ABC, Generic[AnyLayer]):
    """Everything that pruning needs to know about one kind of layer.

    An adapter has no state: it is given the layer. It serves layers of exactly the types that it
    is registered for, because a subclass may compute something else in its forward pass.

    Attributes:
        multiplies: Whether outputs are weighted sums of inputs, with a matrix ``weight``
            [outputs, inputs, ...] and a ``bias`` that may be None. Repair refits such layers.
        averages: Whether it normalises with running statistics, so that it is a fixed affine map
            that can be folded into the layer before it.
        channel_axis: Along which its channels lie in what it reads and writes.
    """

    multiplies: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    channel_axis: ClassVar[int] = 1

    @abstractmethod
    def channels(self, layer: AnyLayer) -> tuple[int, int]:
        """Channels that the layer writes and reads."""

    @abstractmethod
    def facts(self, layer: AnyLayer) -> LayerFacts | None:
        """The layer's row of a cost table; None if it costs nothing."""

    @abstractmethod
    def slim(self, layer: AnyLayer, outputs: Channels | None, inputs: Channels | None) -> nn.Module:
        """A physically smaller copy.

        Args:
            layer: The layer; it is not changed, and shares no tensor that training changes.
            outputs: Channels to write that stay; None for all.
            inputs: Channels to read that stay; None for all.
        """

    def obstacle(self, layer: AnyLayer) -> str | None:
        """What is special about a layer whose channels cannot be removed; None if they can be."""
        return None

    def passes_all(self, layer: AnyLayer) -> bool:
        """Whether it treats any number of channels alike, so that none are its own."""
        return False

    def inseparable(self, layer: AnyLayer) -> int:
        """How many neighbouring output channels can only be removed together."""
        return 1

    def ignore(
        self, layer: AnyLayer, outputs: Channels | None, inputs: Channels | None
    ) -> nn.Module:
        """Make a full-size layer ignore channels, for the slow oracle of slimming.

        Most layers have to do so where they read channels, and write each channel from its own.

        Args:
            layer: The layer; it may be changed.
            outputs: Channels to write that are removed; None for none.
            inputs: Channels to read that are removed; None for none.

        Returns:
            The layer, or what takes its place.
        """
        return layer

    def scale_inputs(self, layer: AnyLayer, inputs: Channels, factors: NDArray[np.float64]) -> None:
        """Multiply what the layer reads from some channels, in place, by scaling its weight.

        Only of layers that multiply (:attr:`multiplies`), whose weight must be their own.

        Args:
            layer: The layer.
            inputs: Channels that it reads, int64 [n]; of a grouped convolution, channels at one
                place in each group have one factor.
            factors: Theirs, float64 [n].
        """
        raise NotImplementedError

    def makes_channels(self, layer: AnyLayer) -> bool:
        """Whether each output may read every input, so that its channels begin here."""
        return self.multiplies

    def map_size(self, values: Tensor) -> tuple[int, int]:
        """Height and width of the map that the layer reads or writes.

        Args:
            values: Its input or output, [n, C, H, W] or [n, C].

        Returns:
            (1, 1) where there is no map.
        """
        return (int(values.shape[2]), int(values.shape[3])) if values.dim() == 4 else (1, 1)

    def blank_input(self, layer: AnyLayer, channels: int, size: tuple[int, int]) -> Tensor:
        """Zeros that the layer can read, to time it.

        Args:
            layer: The layer.
            channels: Channels to read.
            size: Height and width of the map, as :meth:`map_size` has them.

        Returns:
            float32, a batch of one.
        """
        return torch.zeros(1, channels, *size)


_ADAPTERS: dict[type[nn.Module], LayerAdapter[Any]] = {}


def register(layer: type[nn.Module], adapter: LayerAdapter[Any]) -> None:
    """Let an adapter serve a kind of layer.

    Args:
        layer: The type; its subclasses are not served.
        adapter: Its adapter.
    """
    _ADAPTERS[layer] = adapter


def adapter_of(layer: nn.Module) -> LayerAdapter[Any] | None:
    """The adapter of a layer that is exactly of its type; None where it must be left alone."""
    return _ADAPTERS.get(type(layer)) if is_unaltered(layer) else None


def description(layer: nn.Module) -> str:
    """A layer that has no adapter, in words: its type, and what was done to it."""
    return f"a {type(layer).__name__}{_alteration(layer)}"


def is_unaltered(layer: nn.Module) -> bool:
    """Whether a layer computes what its type does: no hook or function was put in its way."""
    return not _alteration(layer)


def _alteration(layer: nn.Module) -> str:
    """What makes a layer compute something else than its type does; empty if nothing is known."""
    if "forward" in layer.__dict__:
        return " whose forward was replaced"
    if has_foreign_hooks(layer):
        return " with forward hooks"
    return ""


def multiplies(layer: nn.Module) -> bool:
    """Whether a layer is exactly what :attr:`LayerAdapter.multiplies` says."""
    adapter = adapter_of(layer)
    return adapter is not None and adapter.multiplies


def averages(layer: nn.Module) -> bool:
    """Whether a layer is exactly what :attr:`LayerAdapter.averages` says."""
    adapter = adapter_of(layer)
    return adapter is not None and adapter.averages


def own_copy(layer: AnyLayer, outputs: Channels | None = None) -> AnyLayer:
    """A copy with parameters and buffers of its own, or with some of their entries.

    Args:
        layer: Any layer without children.
        outputs: Entries along the first axis that stay; None for all.
    """
    index = None if outputs is None else torch.from_numpy(outputs)

    def part(values: Tensor) -> Tensor:
        return values[index] if index is not None and values.dim() else values.clone()

    duplicate = copy.copy(layer)
    duplicate._parameters = {
        key: None if value is None else nn.Parameter(part(value.detach()), requires_grad=False)
        for key, value in layer._parameters.items()
    }
    duplicate._buffers = {
        key: None if value is None else part(value) for key, value in layer._buffers.items()
    }
    return duplicate
