"""What the dense network computes at sampled places: the targets of full repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..calls import map_size
from ..hooks import hear_calls
from ..layers import Sites, sample_sites
from .patches import channels_at

__all__ = ["DenseTargets", "ObserveSums", "gather_targets"]

_SUMS_IN_PLACE = (Tensor.add_, Tensor.__iadd__)
_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, *_SUMS_IN_PLACE)


class ObserveSums(TorchFunctionMode):
    """Calls a function whenever two tensors of one shape are added.

    Args:
        observe: Given the two summands; returns a tensor to be used as their sum, or None to let
            the addition happen.
        overwritten: Given every tensor that another function may have changed in place.
    """

    def __init__(
        self,
        observe: Callable[[Tensor, Tensor], Tensor | None],
        overwritten: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        super().__init__()
        self._observe = observe
        self._overwritten = overwritten

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look at additions; pass everything else on."""
        if (
            func in _SUMS
            and not kwargs
            and len(args) == 2
            and all(isinstance(each, Tensor) for each in args)
            and args[0].shape == args[1].shape
        ):
            replaced = self._observe(args[0], args[1])
            if replaced is not None:
                # The network may go on with the first summand instead of what it is given.
                return args[0].copy_(replaced) if func in _SUMS_IN_PLACE else replaced
        result = func(*args, **(kwargs or {}))
        if args and isinstance(result, Tensor) and result is args[0]:
            self._overwritten(result)
        return result


@dataclass(frozen=True)
class DenseTargets:
    """Sampled values of one dense forward pass.

    Attributes:
        sites: Where each layer's outputs were sampled.
        outputs: The layer's outputs there, float32 [rows, C].
        sums: Where a layer's output (through its BatchNorm) is one summand of a residual sum: that
            sum, float32 [rows, C].
        order: Layers in the order of execution.
    """

    sites: dict[str, Sites] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


@torch.inference_mode()
def gather_targets(
    network: nn.Module,
    layers: Iterable[str],
    norms: dict[str, str],
    images: Tensor,
    rows: int,
    seed: int = 0,
) -> DenseTargets:
    """Run the dense network once and sample what its layers and residual sums compute.

    Args:
        network: The dense network, in evaluation mode.
        layers: Convolutions and linear layers to sample; those that run several times are left
            out.
        norms: BatchNorm that directly follows a layer, by layer name.
        images: float32 [N, C, H, W], one batch.
        rows: Places per layer.
        seed: Decides the places.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = DenseTargets()
    calls: Counter[str] = Counter()
    summands: dict[int, tuple[str, Tensor]] = {}

    def at_sites(name: str, values: Tensor) -> Tensor:
        return channels_at(network.get_submodule(name), values, targets.sites[name])

    def observe(left: Tensor, right: Tensor) -> None:
        owners = [summands[id(each)][0] for each in (left, right) if id(each) in summands]
        if owners:
            first = min(owners, key=targets.order.index)
            if first not in targets.sums:
                targets.sums[first] = at_sites(first, left + right)

    def forget(tensor: Tensor) -> None:
        summands.pop(id(tensor), None)

    def sample(name: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
        def hook(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            calls[name] += 1
            if calls[name] == 1:
                size = map_size(module, output)
                targets.sites[name] = sample_sites(len(output), size, rows, generator)
                targets.outputs[name] = at_sites(name, output)
                targets.order.append(name)

        return hook

    def remember(name: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
        def hook(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            # Holding the tensor keeps its id from being given to another one.
            summands[id(output)] = (name, output)

        return hook

    handles = []
    for name in layers:
        layer = network.get_submodule(name)
        last = network.get_submodule(norms.get(name, name))
        handles.append(hear_calls(layer, sample(name)))
        handles.append(hear_calls(last, remember(name)))
    try:
        with ObserveSums(observe, forget):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    for name in [name for name, times in calls.items() if times > 1]:
        for sampled in (targets.sites, targets.outputs, targets.sums):
            sampled.pop(name, None)
        targets.order.remove(name)
    return targets
