"""Small changes that make other people's networks fit our data and our hooks."""

from __future__ import annotations

from torch import nn

__all__ = ["adapt_input_channels", "own_activations"]


def adapt_input_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution, in place, by one that reads ``channels`` channels.

    Nothing happens where it reads that many already. The new convolution is freshly initialised.
    """
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.in_channels != channels:
            parent, _, attribute = name.rpartition(".")
            replacement = nn.Conv2d(
                channels,
                module.out_channels,
                kernel_size=module.kernel_size,  # type: ignore[arg-type]
                stride=module.stride,  # type: ignore[arg-type]
                padding=module.padding,  # type: ignore[arg-type]
                dilation=module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
            setattr(network.get_submodule(parent), attribute, replacement)
        return


def own_activations(network: nn.Module) -> None:
    """Make every activation work out of place.

    An in-place activation would overwrite what hooks on the layer before it have been given.
    """
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
