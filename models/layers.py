"""The layers of a network that can be slimmed, as one forward pass meets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import NetworkError
from .zoo.shortcut import PadShortcut

__all__ = ["LayerCall", "is_depthwise", "norms_after", "record_layer_calls"]

_LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, PadShortcut)


@dataclass(frozen=True)
class LayerCall:
    """How one forward pass used a layer.

    Attributes:
        name: Qualified module name.
        times: Calls in one forward pass.
        input_size: Height and width of the (first) input; (1, 1) where it has no map.
        output_size: Height and width of the (first) output; (1, 1) where it has no map.
    """

    name: str
    times: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution filters every channel by itself, one output each."""
    return (
        isinstance(module, nn.Conv2d)
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def record_layer_calls(network: nn.Module, example_input: Tensor) -> list[LayerCall]:
    """The layers in the order of their first call.

    Args:
        network: Any network of one image input.
        example_input: Images [n, C, H, W].

    Raises:
        NetworkError: If the forward pass fails.
    """
    calls: dict[str, LayerCall] = {}
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name = names[module]
        previous = calls.get(name)
        calls[name] = LayerCall(
            name,
            previous.times + 1 if previous else 1,
            previous.input_size if previous else _map_size(inputs[0]),
            previous.output_size if previous else _map_size(output),
        )

    handles = [
        module.register_forward_hook(record) for module in names if isinstance(module, _LAYERS)
    ]
    try:
        with torch.inference_mode():
            network(example_input)
    except Exception as error:
        raise NetworkError(
            f"The network does not accept images of shape {tuple(example_input.shape[1:])}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return list(calls.values())


def norms_after(network: nn.Module, example_input: Tensor) -> dict[str, str]:
    """Which BatchNorm reads each convolution's or linear layer's output directly.

    Args:
        network: Any network of one image input.
        example_input: Images [n, C, H, W].

    Returns:
        Layer name to BatchNorm name, for layers whose output goes straight into one.
    """
    produced: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            source = produced.get(id(inputs[0]))
            if source is not None:
                pairs[source[0]] = names[module]
        else:
            # Holding the tensor keeps its id from being reused by a later one.
            produced[id(output)] = (names[module], output)

    handles = [
        module.register_forward_hook(record)
        for module in names
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    try:
        with torch.inference_mode():
            network(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _map_size(tensor: Tensor) -> tuple[int, int]:
    return (int(tensor.shape[2]), int(tensor.shape[3])) if tensor.dim() == 4 else (1, 1)
