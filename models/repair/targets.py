"""What the dense network computes at sampled places: the targets of full repair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .patches import Sites, channels_at, sample_sites

__all__ = ["DenseTargets", "ObserveSums", "gather_targets"]

_SUMS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__)


class ObserveSums(TorchFunctionMode):
    """Calls a function whenever two tensors of one shape are added.

    Args:
        observe: Given the two summands; returns a tensor to be used as their sum, or None to let
            the addition happen.
    """

    def __init__(self, observe: Callable[[Tensor, Tensor], Tensor | None]) -> None:
        super().__init__()
        self._observe = observe

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
                return replaced
        return func(*args, **(kwargs or {}))


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
        layers: Convolutions and linear layers to sample.
        norms: BatchNorm that directly follows a layer, by layer name.
        images: float32 [N, C, H, W], one batch.
        rows: Places per layer.
        seed: Decides the places.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = DenseTargets()
    summands: dict[int, tuple[str, Tensor]] = {}

    def sample(name: str, output: Tensor) -> None:
        size = (output.shape[2], output.shape[3]) if output.dim() == 4 else (1, 1)
        targets.sites[name] = sample_sites(len(output), size, rows, generator)
        targets.outputs[name] = channels_at(output, targets.sites[name])
        targets.order.append(name)

    def remember(owner: str, output: Tensor) -> None:
        # Holding the tensor keeps its id from being given to another one.
        summands[id(output)] = (owner, output)

    def observe(left: Tensor, right: Tensor) -> None:
        owners = [summands[id(each)][0] for each in (left, right) if id(each) in summands]
        if owners:
            first = min(owners, key=targets.order.index)
            if first not in targets.sums:
                targets.sums[first] = channels_at(left + right, targets.sites[first])

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name not in targets.sites:
                sample(name, output)
            remember(name, output)

        return hook

    handles = []
    for name in layers:
        for module in (name, norms.get(name)):
            if module is not None:
                handles.append(network.get_submodule(module).register_forward_hook(listen(name)))
    try:
        with ObserveSums(observe):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return targets
