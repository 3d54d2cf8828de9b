"""Small changes that make other people's networks fit our data and our hooks."""

from __future__ import annotations

from torch import nn

__all__ = ["adapt_input_channels", "own_activations", "unwrap"]

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(network: nn.Module) -> tuple[nn.Module, str | None]:
    """The network that was wrapped to be trained on several devices or to be compiled.

    A wrapper computes what is in it and puts a prefix before every name.

    Args:
        network: Any network.

    Returns:
        What is inside, or the network itself; and a note that says so where it was wrapped.
    """
    wrappers = []
    while True:
        inside = network.module if isinstance(network, _PARALLEL) else _compiled(network)
        if inside is None:
            break
        wrappers.append(type(network).__name__)
        network = inside
    if not wrappers:
        return network, None
    return network, (
        f"The network was wrapped ({', '.join(wrappers)}); what is inside of it is pruned, and "
        "layers have their names without a prefix."
    )


def _compiled(network: nn.Module) -> nn.Module | None:
    """What ``torch.compile`` was given; None for other networks."""
    inside = network._modules.get("_orig_mod")
    return inside if len(network._modules) == 1 else None


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
