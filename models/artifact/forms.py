"""Layers that take the place of others, as merged ones do: their kinds and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ...errors import NetworkError
from ..copying import shallow_copy
from ..reductions.channels import KeptChannels, slim_layers

__all__ = ["LayerForm", "given_memory", "replaced_layers", "with_replaced"]

Size = Annotated[int, Field(ge=1, le=2**24)]
Pad = Annotated[int, Field(ge=0, le=2**16)]
Pair = Annotated[list[Size], Field(min_length=2, max_length=2)]


class LayerForm(BaseModel):
    """What a layer is, but for its weights.

    Attributes:
        kind: Its exact type.
        outputs: Channels that it writes; none of these are said of an identity.
        inputs: Channels that it reads.
        bias: Whether it has a bias.
        kernel: Height and width; this and what follows is said of convolutions only.
        stride: Likewise.
        padding: Likewise.
        dilation: Likewise.
        groups: Convolution groups.
        padding_mode: As PyTorch has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["Identity", "Linear", "Conv2d"]
    outputs: Size = 1
    inputs: Size = 1
    bias: bool = False
    kernel: Pair = [1, 1]
    stride: Pair = [1, 1]
    padding: Annotated[list[Pad], Field(min_length=2, max_length=2)] = [0, 0]
    dilation: Pair = [1, 1]
    groups: Size = 1
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"

    @staticmethod
    def of(layer: nn.Module) -> LayerForm | None:
        """The form of a layer; None where there is no word for it."""
        if type(layer) is nn.Identity:
            return LayerForm(kind="Identity")
        if type(layer) is nn.Linear:
            return LayerForm(
                kind="Linear",
                outputs=layer.out_features,
                inputs=layer.in_features,
                bias=layer.bias is not None,
            )
        if type(layer) is not nn.Conv2d or isinstance(layer.padding, str):
            return None
        return LayerForm(
            kind="Conv2d",
            outputs=layer.out_channels,
            inputs=layer.in_channels,
            bias=layer.bias is not None,
            kernel=list(layer.kernel_size),
            stride=list(layer.stride),
            padding=list(layer.padding),
            dilation=list(layer.dilation),
            groups=layer.groups,
            padding_mode=layer.padding_mode,
        )

    def blank(self) -> nn.Module:
        """Such a layer without values, and so without memory for them."""
        if self.kind == "Identity":
            return nn.Identity()
        if self.kind == "Linear":
            return nn.Linear(self.inputs, self.outputs, self.bias, device="meta")
        return nn.Conv2d(
            self.inputs,
            self.outputs,
            (self.kernel[0], self.kernel[1]),
            (self.stride[0], self.stride[1]),
            (self.padding[0], self.padding[1]),
            (self.dilation[0], self.dilation[1]),
            self.groups,
            self.bias,
            self.padding_mode,
            device="meta",
        )


def replaced_layers(
    dense: nn.Module, kept: KeptChannels, network: nn.Module
) -> dict[str, LayerForm]:
    """Layers of a pruned network that are not those of the dense one with fewer channels.

    Args:
        dense: The dense network.
        kept: Channels that its layers keep.
        network: What it became.

    Returns:
        Their forms, by name; those for which there is no word are left out, so that what is read
        back differs.
    """
    expected = dict(slim_layers(dense, kept).named_modules(remove_duplicate=False))
    found: dict[str, LayerForm] = {}
    for name, layer in network.named_modules(remove_duplicate=False):
        before, form = expected.get(name), LayerForm.of(layer)
        other = before is not None and (
            type(before) is not type(layer) or LayerForm.of(before) != form
        )
        if form is not None and other:
            found[name] = form
    return found


def with_replaced(network: nn.Module, forms: Mapping[str, LayerForm], folder: Path) -> nn.Module:
    """The network with other layers in some places, which have no values yet.

    Args:
        network: The dense network with fewer channels; it is not changed.
        forms: The layers, by name.
        folder: The artifact, for messages.

    Raises:
        NetworkError: If the network has no such places, or there cannot be such a layer.
    """
    names = {name for name, _ in network.named_modules(remove_duplicate=False)} - {""}
    for name in forms:
        if name not in names:
            raise NetworkError(
                f"The artifact {folder} replaces the layer {name!r}, which the dense network does "
                "not have; give the network that was pruned."
            )
    try:
        layers = {name: form.blank() for name, form in forms.items()}
    except (RuntimeError, ValueError) as error:
        raise NetworkError(
            f"The artifact {folder} replaces a layer by one that cannot be "
            f"({type(error).__name__}: {error}); write it again."
        ) from error
    return shallow_copy(network, lambda name, module: layers.get(name)) if layers else network


def given_memory(network: nn.Module) -> nn.Module:
    """Give the modules of a network that have no values memory for them, in place."""
    for module in network.modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(each.is_meta for each in own):
            module.to_empty(device=torch.device("cpu"), recurse=False)
    return network
