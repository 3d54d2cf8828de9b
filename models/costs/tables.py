"""Cost tables: what a network's layers cost as a function of the widths of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TIED", "GroupInfo", "LayerInfo", "LayerKind", "Structure"]

LayerKind = Literal["conv", "depthwise", "linear", "norm", "activation"]

TIED: tuple[LayerKind, ...] = ("depthwise", "norm", "activation")
"""Kinds of layers that write the very channels that they read."""

Share = tuple[tuple[int, int], ...]
"""Which groups decide a channel count: pairs of (group index, channels per unit)."""


@dataclass(frozen=True)
class GroupInfo:
    """A channel group as the tables see it.

    Attributes:
        name: Name of the first layer that produces its channels.
        size: Units in the dense network. One unit is the smallest removable set of channels:
            one channel, or one channel of every convolution group where a layer is grouped.
    """

    name: str
    size: int


@dataclass(frozen=True)
class LayerInfo:
    """A layer as the tables see it.

    Its input count is ``fixed_inputs + sum(per_unit * width[group])`` over ``inputs``; its output
    count likewise.

    Attributes:
        name: Qualified module name.
        kind: Convolution, depthwise convolution, linear, normalisation or activation layer.
        inputs: Groups that decide the input count.
        fixed_inputs: Input channels that no group decides.
        outputs: Groups that decide the output count.
        fixed_outputs: Output channels that no group decides.
        kernel: Kernel height and width; (1, 1) for linear and normalisation layers.
        stride: Stride along the height; 1 for linear and normalisation layers.
        input_size: Height and width of the input map; (1, 1) where there is none. A linear layer
            that is applied at many positions has them all as height.
        output_size: Height and width of the output map, likewise.
        groups: Convolution groups (1 for a depthwise layer, whose kind says it all).
        bias: Whether it has a bias (for a normalisation layer: whether it has an affine map; for an
            activation: whether each channel has a learnable number).
    """

    name: str
    kind: LayerKind
    inputs: Share
    fixed_inputs: int
    outputs: Share
    fixed_outputs: int
    kernel: tuple[int, int]
    stride: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    groups: int
    bias: bool


@dataclass(frozen=True)
class Structure:
    """Groups and layers of a network: exact costs of any candidate without building it.

    FLOPs are 2 x multiply-accumulates at batch 1, without the additions of biases; this is the
    convention of ``torch.utils.flop_counter``. Parameters are all learnable numbers.

    Attributes:
        groups: The channel groups, in the order in which data reach them.
        layers: All convolution, linear and normalisation layers, in the order of execution; one
            that runs several times is listed as often.
        input_shape: Channels, height and width of one input image.
        other_params: Learnable numbers that the table does not list, less those of layers that
            it lists again.
        other_flops: FLOPs of operations that the table does not list (attention, ...).
    """

    groups: tuple[GroupInfo, ...]
    layers: tuple[LayerInfo, ...]
    input_shape: tuple[int, int, int]
    other_params: int = 0
    other_flops: int = 0

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Units per group in the dense network, int64 of shape [G]."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    def layer_flops(self, widths: ArrayLike) -> NDArray[np.int64]:
        """FLOPs of every layer.

        Args:
            widths: Units kept, integers of shape [..., G].

        Returns:
            FLOPs at batch 1, int64 of shape [..., L].
        """
        return 2 * self._positions * self._layer_weights(widths)

    def layer_params(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Learnable numbers of every layer; shapes as for :meth:`layer_flops`."""
        _, outputs = self.channels(widths)
        return self._layer_weights(widths) + outputs * self._affine_per_output

    def flops(self, widths: ArrayLike) -> NDArray[np.int64]:
        """FLOPs of candidates ``widths`` [..., G] at batch 1, int64 of shape [...]."""
        return np.asarray(self.layer_flops(widths).sum(axis=-1) + self.other_flops)

    def params(self, widths: ArrayLike) -> NDArray[np.int64]:
        """Learnable numbers of candidates ``widths`` [..., G], int64 of shape [...]."""
        return np.asarray(self.layer_params(widths).sum(axis=-1) + self.other_params)

    @cached_property
    def dense_flops(self) -> int:
        """FLOPs of the dense network at batch 1."""
        return int(self.flops(self.sizes))

    @cached_property
    def dense_params(self) -> int:
        """Learnable numbers of the dense network."""
        return int(self.params(self.sizes))

    def decided_at(self) -> NDArray[np.int64]:
        """The step at which each layer's cost is known when groups are decided in order.

        Returns:
            Largest index of a group that the layer depends on, 0 where there is none; int64 [L].
        """
        steps = [
            max((group for group, _ in (*layer.inputs, *layer.outputs)), default=0)
            for layer in self.layers
        ]
        return np.array(steps, dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Structure:
        """The structure that :meth:`to_dict` described, also after a JSON round trip."""
        return cls(
            groups=tuple(GroupInfo(**group) for group in description["groups"]),
            layers=tuple(_layer_from_dict(layer) for layer in description["layers"]),
            input_shape=tuple(description["input_shape"]),
            other_params=description["other_params"],
            other_flops=description["other_flops"],
        )

    def channels(self, widths: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input and output channels of every layer, int64 [..., L], for widths [..., G]."""
        units = np.asarray(widths, dtype=np.int64)
        return (
            units @ self._input_share + self._fixed_inputs,
            units @ self._output_share + self._fixed_outputs,
        )

    def _layer_weights(self, widths: ArrayLike) -> NDArray[np.int64]:
        inputs, outputs = self.channels(widths)
        # Only 1 in `groups` of the (input, output) pairs exists; the division is exact because a
        # unit holds one channel of every convolution group.
        pairs = inputs * outputs // self._convolution_groups
        return pairs * self._weights_per_pair + outputs * self._weights_per_output

    @cached_property
    def _input_share(self) -> NDArray[np.int64]:
        return _share_matrix([layer.inputs for layer in self.layers], len(self.groups))

    @cached_property
    def _output_share(self) -> NDArray[np.int64]:
        return _share_matrix([layer.outputs for layer in self.layers], len(self.groups))

    @cached_property
    def _fixed_inputs(self) -> NDArray[np.int64]:
        return np.array([layer.fixed_inputs for layer in self.layers], dtype=np.int64)

    @cached_property
    def _fixed_outputs(self) -> NDArray[np.int64]:
        return np.array([layer.fixed_outputs for layer in self.layers], dtype=np.int64)

    @cached_property
    def _weights_per_pair(self) -> NDArray[np.int64]:
        return np.array(
            [
                layer.kernel[0] * layer.kernel[1] if layer.kind in ("conv", "linear") else 0
                for layer in self.layers
            ],
            dtype=np.int64,
        )

    @cached_property
    def _weights_per_output(self) -> NDArray[np.int64]:
        return np.array(
            [
                layer.kernel[0] * layer.kernel[1] if layer.kind == "depthwise" else 0
                for layer in self.layers
            ],
            dtype=np.int64,
        )

    @cached_property
    def _affine_per_output(self) -> NDArray[np.int64]:
        return np.array(
            [int(layer.bias) * (2 if layer.kind == "norm" else 1) for layer in self.layers],
            dtype=np.int64,
        )

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        return np.array(
            [layer.output_size[0] * layer.output_size[1] for layer in self.layers], dtype=np.int64
        )

    @cached_property
    def _convolution_groups(self) -> NDArray[np.int64]:
        return np.array([layer.groups for layer in self.layers], dtype=np.int64)


def _share_matrix(shares: Sequence[Share], groups: int) -> NDArray[np.int64]:
    matrix = np.zeros((groups, len(shares)), dtype=np.int64)
    for layer, share in enumerate(shares):
        for group, per_unit in share:
            matrix[group, layer] += per_unit
    return matrix


def _layer_from_dict(description: Mapping[str, Any]) -> LayerInfo:
    values = dict(description)
    for key in ("inputs", "outputs"):
        values[key] = tuple((int(group), int(per_unit)) for group, per_unit in values[key])
    for key in ("kernel", "input_size", "output_size"):
        values[key] = tuple(values[key])
    return LayerInfo(**values)
