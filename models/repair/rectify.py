"""Rectifiers behind layers: which values of a layer make no difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..calls import CountUses
from ..hooks import hear_calls

__all__ = ["FlatParts", "Rectifier", "rectifiers_after"]

_RELU = (torch.relu, torch.relu_, functional.relu, functional.relu_, Tensor.relu, Tensor.relu_)


@dataclass(frozen=True)
class Rectifier:
    """A function that is constant up to one value and from another on, and rises between.

    Attributes:
        low: It is constant below.
        high: It is constant above; may be infinite.
    """

    low: float
    high: float


@dataclass(frozen=True)
class FlatParts:
    """Where a change of a layer's outputs changes nothing behind a rectifier.

    Attributes:
        low: Outputs up to this one are all the same, float32 [C]; minus infinity where none are.
        high: Outputs from this one on are all the same, float32 [C].
    """

    low: Tensor
    high: Tensor

    @classmethod
    def behind(
        cls, rectifier: Rectifier, scale: Tensor, shift: Tensor, usable: Tensor
    ) -> FlatParts:
        """Of a layer y whose ``scale * y + shift`` is rectified.

        Args:
            rectifier: What follows.
            scale: float32 [C].
            shift: float32 [C].
            usable: Channels whose scale can be divided by, bool [C]; others have no flat parts.
        """
        safe = torch.where(usable, scale, torch.ones_like(scale))
        ends = (rectifier.low - shift) / safe, (rectifier.high - shift) / safe
        low, high = torch.minimum(*ends), torch.maximum(*ends)
        return cls(low.masked_fill(~usable, -math.inf), high.masked_fill(~usable, math.inf))

    def __getitem__(self, channels: slice) -> FlatParts:
        """Those of some channels."""
        return FlatParts(self.low[channels], self.high[channels])

    def nearest(self, wanted: Tensor, computed: Tensor) -> Tensor:
        """Of all outputs that are as good as those wanted, the ones nearest to those computed.

        Args:
            wanted: float32 [rows, C].
            computed: float32 [rows, C].
        """
        nearest = torch.where(wanted <= self.low, torch.minimum(computed, self.low), wanted)
        if bool(self.high.isinf().all()):
            return nearest
        return torch.where(wanted >= self.high, torch.maximum(computed, self.high), nearest)


def rectifiers_after(
    network: nn.Module, layers: Iterable[str], norms: Mapping[str, str], images: Tensor
) -> dict[str, Rectifier]:
    """Which layers' outputs go straight into a rectifier and nowhere else.

    Args:
        network: Any network, in evaluation mode.
        layers: Convolutions and linear layers to look at.
        norms: BatchNorm that directly follows a layer, by layer name; its output is looked at then.
        images: Images [n, C, H, W].

    Returns:
        The rectifier by the layer's name, of layers that run once.
    """
    seen = _SeeRectifiers()
    produced: dict[str, list[Tensor]] = {name: [] for name in layers}

    def record(name: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
        def hook(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            # Holding the tensor keeps its id from being reused by a later one.
            produced[name].append(output)
            seen.of[id(output)] = 0

        return hook

    handles = [
        hear_calls(network.get_submodule(norms.get(name, name)), record(name)) for name in produced
    ]
    try:
        with torch.inference_mode(), seen:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    once = {name: id(outputs[0]) for name, outputs in produced.items() if len(outputs) == 1}
    return {
        name: seen.rectifiers[key]
        for name, key in once.items()
        if key in seen.rectifiers and seen.of[key] == 1
    }


class _SeeRectifiers(CountUses):
    """Counts uses, and notes which are by rectifiers.

    Attributes:
        rectifiers: By the id of the tensor that was rectified.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rectifiers: dict[int, Rectifier] = {}
        self._overwritten: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look, count and pass on."""
        counts = {key: self.of[key] for key in self._overwritten}
        result = super().__torch_function__(func, types, args, kwargs)
        # What reads an overwritten tensor reads the rectifier's output, not the layer's.
        self.of.update(counts)
        rectifier = _rectifier(func, args, kwargs or {})
        rectified = args[0] if args else (kwargs or {}).get("input")
        if rectifier is not None and id(rectified) in self.of:
            self.rectifiers.setdefault(id(rectified), rectifier)
            if result is rectified:
                self._overwritten.add(id(result))
        return result


def _rectifier(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Rectifier | None:
    """The rectifier that a function of a tensor is."""
    if func in _RELU:
        return Rectifier(0.0, math.inf)
    if func is functional.relu6:
        return Rectifier(0.0, 6.0)
    if func is functional.hardtanh:
        bounds = dict(zip(("min_val", "max_val"), args[1:3], strict=False)) | kwargs
        return Rectifier(float(bounds.get("min_val", -1.0)), float(bounds.get("max_val", 1.0)))
    return None
