"""Alignment: recalibration that also fits residual sums and the classifier to the dense network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batchnorm import estimating_statistics
from ..hooks import hear_calls, hear_inputs
from ..layers import (
    MultiplyingAdapter,
    Sites,
    adapter_of,
    averager_of,
    multiplier_of,
    tied_layers,
)
from ..reductions.channels import KeptChannels
from .patches import channels_at, layer_patches
from .ridge import RidgeRegression
from .targets import DenseTargets, ObserveSums, gather_targets

__all__ = ["Alignment"]

_ROWS = 4_000
# How far a scale goes from what recalibration gives to least squares.
_SHARE = 0.75
# Of the classifier, as a share of the mean variance of what it reads, for each column per image.
_RIDGE = 0.6
_LEAST_VARIANCE = 1e-12
# A classifier of more columns keeps its weights: solving for them would take gigabytes.
_MOST_FEATURES = 4096


class Alignment:
    """Ends quick repair: one forward pass of the slim network that sees what errors add up to.

    Quick repair takes every layer's inputs for those of the dense network. Running the slim
    network on some images, this sets what can be set without a solve per layer (method: our
    choice):

    - Every BatchNorm gets the statistics of these images (recalibration).
    - Where its output u adds to a residual stream, it is scaled and shifted per channel to
      a u + b. The target is the dense network's sum minus the slim network's shortcut: b gives it
      the target's mean, and a is three quarters of the way from 1 to least squares.
    - The linear layer that gives the network's output is regressed to the dense network's output,
      with a ridge towards the weights it has.

    Args:
        network: The dense network, float32, on the CPU.
        norms: BatchNorm that directly follows a layer, by layer name.
        images: Calibration images, float32 [N, C, H, W], run as one batch.
        device: Where slim networks are aligned.
    """

    def __init__(
        self,
        network: nn.Module,
        norms: Mapping[str, str],
        images: Tensor,
        device: torch.device | None = None,
    ) -> None:
        self._norms = {
            layer: norm
            for layer, norm in norms.items()
            if _mixes_maps(network.get_submodule(layer))
            and averager_of(network.get_submodule(norm)).is_adjustable(network.get_submodule(norm))
        }
        self._classifier = _classifier_of(network, images[:2])
        layers = [*self._norms, *([] if self._classifier is None else [self._classifier])]
        targets = gather_targets(network, layers, dict(norms), images, _ROWS)
        self._targets = targets if device is None else _moved(targets, device)

    @torch.no_grad()
    def apply(self, network: nn.Module, kept: KeptChannels, images: Tensor) -> None:
        """Align a slim network in place.

        Args:
            network: After quick repair, in evaluation mode; its BatchNorm layers and its
                classifier are its own.
            kept: Which channels of every layer it kept.
            images: Those that the alignment was made for, in the network's precision and on its
                device.
        """
        _Pass(network, self._norms, self._classifier, self._targets, kept).run(images)


class _Pass:
    """The alignment of one slim network."""

    def __init__(
        self,
        network: nn.Module,
        norms: Mapping[str, str],
        classifier: str | None,
        targets: DenseTargets,
        kept: KeptChannels,
    ) -> None:
        self._network = network
        self._modules = dict(network.named_modules())
        self._norms = norms
        self._classifier = classifier
        self._targets = targets
        self._kept = kept
        self._waiting: dict[int, tuple[str, Tensor]] = {}

    def run(self, images: Tensor) -> None:
        """Run the images once and set what they tell."""
        handles = [
            hear_calls(self._modules[self._norms[name]], self._wait(name))
            for name in self._targets.sums
            if name in self._norms
        ]
        if self._classifier in self._targets.outputs:
            handles.append(hear_inputs(self._modules[self._classifier], self._refit_classifier))
        try:
            with estimating_statistics(self._network), ObserveSums(self._align_sum):
                self._network(images)
        finally:
            for handle in handles:
                handle.remove()

    def _wait(self, name: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
        def wait(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            # Holding the tensor keeps its id from being given to another one.
            self._waiting[id(output)] = (name, output)

        return wait

    def _align_sum(self, left: Tensor, right: Tensor) -> Tensor | None:
        for summand, shortcut in ((left, right), (right, left)):
            name, _ = self._waiting.pop(id(summand), (None, None))
            if name is None:
                continue
            layer = self._modules[name]
            sites = self._targets.sites[name]
            wanted = self._kept_columns(name, self._targets.sums[name])
            wanted = wanted - channels_at(layer, shortcut, sites).float()
            scale, shift = _affine_fit(channels_at(layer, summand, sites).float(), wanted)
            norm = self._modules[self._norms[name]]
            averager_of(norm).rescale(norm, scale, shift)
            return _scaled(summand, scale, shift).add_(shortcut)
        return None

    def _refit_classifier(self, layer: nn.Module, inputs: Tensor) -> None:
        name = self._classifier
        assert name is not None
        weights, bias = multiplier_of(layer).weight(layer), multiplier_of(layer).bias(layer)
        vectors = layer_patches(layer, inputs, self._targets.sites[name]).float().cpu()
        rows, columns = vectors.shape
        ridge = _RIDGE * columns / rows * float(vectors.var(dim=0, correction=0).mean())
        weight, offset = RidgeRegression(
            vectors,
            weights.float().cpu(),
            bias is not None,
            ridge * torch.eye(columns),
        ).fit(self._targets.outputs[name].cpu())
        weights.copy_(weight)
        if bias is not None:
            bias.copy_(offset)

    def _kept_columns(self, name: str, values: Tensor) -> Tensor:
        """``values`` [rows, C] of the outputs that the slim layer has."""
        outputs, _ = self._kept.get(name, (None, None))
        return values if outputs is None else values[:, torch.from_numpy(outputs)]


def _affine_fit(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift per column, three quarters of the way to the least squares of ``wanted``."""
    mean_given, mean_wanted = given.mean(dim=0), wanted.mean(dim=0)
    centred = given - mean_given
    variance = centred.square().mean(dim=0)
    covariance = (centred * (wanted - mean_wanted)).mean(dim=0)
    slope = torch.where(variance > _LEAST_VARIANCE, covariance / variance, 1.0)
    scale = 1.0 + _SHARE * (slope - 1.0)
    return scale, mean_wanted - scale * mean_given


def _scaled(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``values`` [N, C, H, W] times a scale plus a shift per channel, in one pass over memory."""
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    return functional.batch_norm(values, zeros, ones, scale, shift, eps=0.0)


def _mixes_maps(layer: nn.Module) -> bool:
    """Whether a layer writes maps, each of them from all that it reads."""
    adapter = adapter_of(layer)
    return (
        adapter is not None
        and adapter.multiplies
        and adapter.channel_axis == 1
        and adapter.makes_channels(layer)
    )


def _ends_in_vectors(layer: nn.Module) -> bool:
    """Whether a layer multiplies vectors of not too many columns."""
    adapter = adapter_of(layer)
    if not isinstance(adapter, MultiplyingAdapter) or adapter.channel_axis != -1:
        return False
    return adapter.weight(layer).shape[1] <= _MOST_FEATURES


def _classifier_of(network: nn.Module, images: Tensor) -> str | None:
    """The linear layer whose output is the network's output, if there is one."""
    outputs: dict[str, Tensor] = {}
    tied = tied_layers(network)

    def keep(name: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [
        hear_calls(module, keep(name))
        for name, module in network.named_modules()
        if _ends_in_vectors(module) and name not in tied
    ]
    try:
        with torch.inference_mode():
            result = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return next((name for name, output in outputs.items() if output is result), None)


def _moved(targets: DenseTargets, device: torch.device) -> DenseTargets:
    """The same targets on another device."""
    return dataclasses.replace(
        targets,
        sites={
            name: Sites(*(each.to(device) for each in (at.image, at.row, at.column)))
            for name, at in targets.sites.items()
        },
        outputs={name: values.to(device) for name, values in targets.outputs.items()},
        sums={name: values.to(device) for name, values in targets.sums.items()},
    )
