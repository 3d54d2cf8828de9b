"""Full repair: layer by layer on the slim network's own activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..calls import norms_after
from ..copying import shallow_copy
from ..hooks import hear_calls, hear_inputs
from ..inference.precision import cast_network, place_images
from ..layers import (
    adapter_of,
    averager_of,
    averages,
    multiplier_of,
    multiplies,
    own_copy,
    tied_layers,
)
from ..reductions.channels import KeptChannels
from .gathering import gather_moments
from .held_out import are_few, held_out_count
from .moments import RIDGE, InputMoments, LayerMoments
from .patches import channels_at, patches_by_position
from .rectify import FlatParts, Rectifier, rectifiers_after
from .refit import refit_weights
from .targets import DenseTargets, ObserveSums, gather_targets

__all__ = ["FULL", "LIGHT", "Effort", "FullRepair"]

_CPU = torch.device("cpu")
# Beyond this many columns a layer keeps the weights of quick repair.
_MOST_COLUMNS = 2400
# A BatchNorm scale below this share of the layer's largest one cannot be divided by.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Effort:
    """What a repair on the slim network's own activations may cost.

    Attributes:
        images: Calibration images to run, from the first on; None for all.
        rows: Places per layer that are regressed on, at least; all of them if there are fewer.
        rows_per_image: The same per image; the larger number counts.
        trust: How much the dense network's moments count, against the places seen.
        rounds: How often targets that a rectifier makes equal are chosen anew.
    """

    images: int | None
    rows: int
    rows_per_image: int
    trust: float
    rounds: int


FULL = Effort(images=None, rows=16_000, rows_per_image=24, trust=0.03, rounds=3)
LIGHT = Effort(images=128, rows=2_000, rows_per_image=0, trust=1.0, rounds=0)


class FullRepair:
    """Refits every layer in the order of execution, in one forward pass of the slim network.

    A layer's weights are regressed (with intercept) from its inputs in the slim network, whose
    earlier layers are repaired already, to the dense network's outputs at the same places. A layer
    that adds to a residual stream gets the dense network's sum minus the slim network's shortcut as
    target, so that errors of earlier blocks are corrected too. Each regression shrinks towards the
    weights W' that quick repair left, by a ridge and, where the dense network's moments of the
    layer's patches are known, by what they say of a change,

        E_slim |y - V z - b|^2 + trust E_dense |(V - W') x|^2 + ridge |V - W'|^2,

    so that few places are enough (method: our choice, after layer-by-layer reconstruction of
    Luo et al. 2017, arXiv 1707.06342). Where a rectifier follows, all outputs that it makes equal
    are as good as the target; the one nearest to the last fit takes its place, and the layer is
    fitted again, for some rounds (after the nonlinear case of Zhang et al. 2015, arXiv 1505.06798).
    Before a sum that is not done: it made networks worse.

    Where images are few against a layer's columns, the ridge is raised to what the last images say
    of a fit to the others.

    Statistics of BatchNorm stay those of the dense network, which the targets come from;
    recalibrating afterwards would undo part of the fit.

    Args:
        network: The dense network.
        images: Calibration images, float32 [N, C, H, W], run as one batch.
        moments: Moments of what layers read in the dense network, by layer name; those of other
            layers are gathered from the images.
        effort: What a repair may cost.
        precision: That the slim network runs in and regressions multiply in, ``fp32`` or ``bf16``;
            they sum in float32 and solve in float64.
        channels_last: Whether networks run with their memory channels last.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        moments: Mapping[str, InputMoments],
        effort: Effort = FULL,
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
    ) -> None:
        self._network = network
        self._channels_last = channels_last
        self._effort = effort
        self._precision = precision
        all_images = images
        images = place_images(images[: effort.images], "fp32", _CPU, channels_last)
        self._images = place_images(images, precision, _CPU, channels_last)
        self._norms = norms_after(network, images[:2])
        self._tied = tied_layers(network)
        layers = [
            name
            for name, module in network.named_modules()
            if _is_refitted(module) and name not in self._tied
        ]
        rows = max(effort.rows, effort.rows_per_image * len(images))
        self._targets: DenseTargets = gather_targets(network, layers, self._norms, images, rows)
        rectifiers = rectifiers_after(network, layers, self._norms, images[:2])
        self._rectifiers = {n: r for n, r in rectifiers.items() if n not in self._targets.sums}
        self._moments = dict(moments)
        # Of wider layers nothing is refitted.
        narrow = [
            name
            for name in layers
            if network.get_parameter(f"{name}.weight")[0].numel() <= _MOST_COLUMNS
        ]
        if unknown := [name for name in narrow if name not in moments]:
            self._moments.update(gather_moments(network, unknown, all_images))

    @torch.no_grad()
    def apply(self, slimmed: nn.Module, kept: KeptChannels) -> nn.Module:
        """Repair a slim network.

        Args:
            slimmed: A slim network after quick repair; it is not changed.
            kept: Which channels of every layer it kept.

        Returns:
            A network that shares nothing that was refitted with ``slimmed``.
        """
        repaired = shallow_copy(
            slimmed, lambda name, module: None if name in self._tied else _own_copy(module)
        )
        running = repaired
        if self._precision != "fp32":
            running = cast_network(repaired, self._precision, _CPU, self._channels_last)
        _Refit(
            self._network,
            repaired,
            running,
            kept,
            self._norms,
            self._targets,
            self._rectifiers,
            self._moments,
            self._effort,
        ).run(self._images)
        return repaired


class _Refit:
    """One pass of full repair over one slim network."""

    def __init__(
        self,
        dense: nn.Module,
        repaired: nn.Module,
        running: nn.Module,
        kept: KeptChannels,
        norms: dict[str, str],
        targets: DenseTargets,
        rectifiers: Mapping[str, Rectifier],
        moments: Mapping[str, InputMoments],
        effort: Effort,
    ) -> None:
        self._network = running
        self._norms = norms
        self._targets = targets
        self._rectifiers = rectifiers
        self._moments = moments
        self._effort = effort
        self._inputs = {name: inputs for name, (_, inputs) in kept.items() if inputs is not None}
        self._modules = dict(repaired.named_modules())
        # What is run: the same modules, or copies in another precision that are kept up to date.
        self._running = dict(running.named_modules())
        self._outputs = {
            name: torch.from_numpy(outputs)
            for name, (outputs, _) in kept.items()
            if outputs is not None
        }
        self._means = {
            name: self._kept_part(name, _running_mean(dense.get_submodule(norm)))
            for name, norm in norms.items()
        }
        # Before the first slimmed layer the slim network computes what the dense one does.
        first = next((i for i, name in enumerate(targets.order) if name in kept), 0)
        self._active = set(targets.order[first:])
        self._waiting: dict[int, tuple[str, Tensor, Tensor]] = {}
        self._images = 0

    def run(self, images: Tensor) -> None:
        """Refit all layers in place."""
        self._images = len(images)
        handles = []
        for name in self._active:
            layer = self._running[name]
            if name in self._targets.sums:
                last = self._running[self._norms[name]] if name in self._norms else layer
                inputs_of: dict[str, Tensor] = {}
                handles.append(hear_inputs(layer, self._keep_input(name, inputs_of)))
                handles.append(hear_calls(last, self._wait(name, inputs_of)))
            else:
                handles.append(hear_inputs(layer, self._refit_now(name)))
        try:
            with ObserveSums(self._refit_at_sum):
                self._network(images)
        finally:
            for handle in handles:
                handle.remove()

    def _keep_input(
        self, name: str, inputs_of: dict[str, Tensor]
    ) -> Callable[[nn.Module, Tensor], None]:
        def keep(module: nn.Module, inputs: Tensor) -> None:
            inputs_of[name] = inputs

        return keep

    def _wait(
        self, name: str, inputs_of: dict[str, Tensor]
    ) -> Callable[[nn.Module, Tensor, Tensor], None]:
        def wait(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            if name in inputs_of:
                self._waiting[id(output)] = (name, inputs_of.pop(name), output)

        return wait

    def _refit_now(self, name: str) -> Callable[[nn.Module, Tensor], None]:
        def refit(module: nn.Module, inputs: Tensor) -> None:
            self._solve(name, inputs, self._kept_columns(name, self._targets.outputs[name]))

        return refit

    def _refit_at_sum(self, left: Tensor, right: Tensor) -> Tensor | None:
        for summand, shortcut in ((left, right), (right, left)):
            waiting = self._waiting.pop(id(summand), None)
            if waiting is None:
                continue
            name, inputs, _ = waiting
            wanted = self._kept_columns(name, self._targets.sums[name])
            layer = self._modules[name]
            wanted = wanted - channels_at(layer, shortcut, self._targets.sites[name]).float()
            self._solve(name, inputs, self._before_norm(name, wanted))
            output = self._running[name].forward(inputs)
            if name in self._norms:
                output = self._running[self._norms[name]].forward(output)
            return output + shortcut
        return None

    def _before_norm(self, name: str, wanted: Tensor) -> Tensor:
        """What a layer must compute for its BatchNorm to give ``wanted`` [rows, C]."""
        scale, shift, usable = self._norm_of(name)
        safe = torch.where(usable, scale, torch.ones_like(scale))
        raw = self._kept_columns(name, self._targets.outputs[name])
        return torch.where(usable, (wanted - shift) / safe, raw)

    def _norm_of(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Scale and shift [C] behind a layer, and which scales can be divided by."""
        if name not in self._norms:
            ones = torch.ones(len(self._modules[name].get_parameter("weight")))
            return ones, torch.zeros_like(ones), ones.bool()
        norm = self._modules[self._norms[name]]
        scale, shift = averager_of(norm).scale(norm), averager_of(norm).shift(norm)
        usable = scale.abs() > _LEAST_SCALE * scale.abs().max()
        return scale, shift - scale * self._means[name], usable

    def _flat_parts(self, name: str) -> FlatParts | None:
        """Where the outputs of a layer make no difference; None if they always do."""
        if not self._effort.rounds or name not in self._rectifiers:
            return None
        return FlatParts.behind(self._rectifiers[name], *self._norm_of(name))

    def _solve(self, name: str, inputs: Tensor, wanted: Tensor) -> None:
        """Refit one layer in place to give ``wanted`` [rows, outputs] at its sites."""
        layer = self._modules[name]
        adapter = multiplier_of(layer)
        weight, bias = adapter.weight(layer), adapter.bias(layer)
        intercept = bias is not None or name in self._norms
        columns = weight[0].numel()
        if columns > _MOST_COLUMNS:
            return
        patches = patches_by_position(layer, inputs, self._targets.sites[name])
        metrics = [self._dense_metric(name, part) for part in range(adapter.parts(layer))]
        if len(patches) < columns and metrics[0] is None:
            return  # too few places to fit anything but noise
        flat, rounds = self._flat_parts(name), self._effort.rounds
        judged = self._judged(name, columns)
        offsets = refit_weights(weight, patches, wanted, metrics, intercept, flat, rounds, judged)
        if bias is not None:
            bias.copy_(offsets)
        elif intercept:
            norm = self._modules[self._norms[name]]
            averager_of(norm).mean(norm).copy_(self._means[name] - offsets)
        self._update_running(name)

    def _judged(self, name: str, columns: int) -> Tensor | None:
        """Places of the last images where images are few against columns, bool [rows]."""
        moments = self._moments.get(name)
        if self._effort.trust >= 1 and moments is not None and moments.ridge <= RIDGE:
            return None  # a change is held back by moments of many places
        images = self._targets.sites[name].image
        count = held_out_count(self._images)
        if not count or not are_few(
            self._images, len(images) // self._images, len(images), columns
        ):
            return None
        judged = images >= self._images - count
        # Of a map of many places some images may not have been seen at all.
        return judged if bool(judged.any()) and not bool(judged.all()) else None

    def _update_running(self, name: str) -> None:
        """Give a refitted layer's values to what is run, where that is another module."""
        for each in (name, self._norms.get(name)):
            if each is not None and self._running[each] is not self._modules[each]:
                for key, value in self._modules[each].state_dict().items():
                    self._running[each].state_dict()[key].copy_(value)

    def _dense_metric(self, name: str, part: int) -> Tensor | None:
        """The trusted covariance of a layer's kept columns, positions first, float32 [D, D]."""
        layer = self._modules[name]
        moments = self._moments.get(name)
        positions = multiplier_of(layer).weight(layer)[0, 0].numel()
        if not isinstance(moments, LayerMoments) or moments.per_channel != positions:
            return None
        columns = moments.columns(self._inputs.get(name))
        columns = columns.view(-1, moments.per_channel).mT.flatten()
        return self._effort.trust * moments.covariance[part][columns][:, columns]

    def _kept_columns(self, name: str, values: Tensor) -> Tensor:
        """``values`` [rows, C] of the outputs that the slim layer has."""
        return values[:, self._outputs[name]] if name in self._outputs else values

    def _kept_part(self, name: str, values: Tensor) -> Tensor:
        """``values`` [C] of the outputs that the slim layer has."""
        return values[self._outputs[name]] if name in self._outputs else values


def _is_refitted(module: nn.Module) -> bool:
    """Whether it multiplies, each output from all inputs of its group."""
    adapter = adapter_of(module)
    return adapter is not None and adapter.multiplies and adapter.makes_channels(module)


def _running_mean(norm: nn.Module) -> Tensor:
    return averager_of(norm).mean(norm)


def _own_copy(module: nn.Module) -> nn.Module | None:
    """A copy of a layer that owns what full repair changes."""
    return own_copy(module) if multiplies(module) or averages(module) else None
