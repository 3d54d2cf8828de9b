"""Block repair: the slim network's blocks learn, one by one, to give what the dense ones give."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..layers import adapter_of
from ..reductions.channels import KeptChannels
from .segments import Segment, cut_network

__all__ = ["BlockRepair", "BlockSchedule"]

# Values between two segments are kept for all images at once, up to this size each.
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class BlockSchedule:
    """How long and how fast a block learns (our choices).

    Attributes:
        epochs: Passes over the calibration images.
        batch_size: Images a step.
        learning_rate: Adam's, at the start; it falls to zero on a cosine.
        held_out: Share of the images that a block does not learn from, and by which it is judged.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    held_out: float = 0.125


class BlockRepair:
    """Trains a repaired network block by block on the dense network's outputs, without labels.

    The network is cut into segments of at least two layers that pass on a single value
    (:func:`cut_network`): residual blocks, or pairs of layers. In the order of execution, all
    weights of a segment are trained by Adam to minimise

        E |segment(z) - y|^2,

    with z what the slim network's earlier segments, already trained, pass on, and y what the dense
    network passes on after the segment; of y the channels that the slim network has. Regression
    cannot see the rectifiers inside a block and behind a sum, nor choose what the first layer of a
    block computes; this can. Reconstruction in blocks is post-training quantisation's (BRECQ, Li
    et al. 2021, arXiv 2102.05426); to put it behind full repair is our choice.

    Statistics of BatchNorm stay as they are. A segment whose error on held-out calibration images
    does not fall keeps the weights that it had.

    Args:
        network: The dense network.
        images: Calibration images, float32 [N, C, H, W].
        schedule: How long and how fast.
        seed: Decides the order of images.
        channels_last: Whether networks run with their memory channels last.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        schedule: BlockSchedule | None = None,
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        self._network = network
        self._channels_last = channels_last
        self._images = images
        self._schedule = schedule or BlockSchedule()
        self._seed = seed
        self._segments = cut_network(network)

    def apply(self, repaired: nn.Module, kept: KeptChannels) -> nn.Module:
        """Repair a slim network.

        Args:
            repaired: A slim network after full repair; it is not changed.
            kept: Which channels of every layer it kept.

        Returns:
            A network that shares nothing with ``repaired``. Where the network cannot be traced it
            is a plain copy.
        """
        # Weights that were made in inference mode could not be trained.
        with torch.inference_mode(False), torch.enable_grad():
            result = copy.deepcopy(repaired).eval().requires_grad_(False)
            affected = [
                index
                for index, segment in enumerate(self._segments)
                if any(layer in kept for layer in segment.layers)
            ]
            if affected:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                dense = copy.deepcopy(self._network).eval().requires_grad_(False)
                self._run(dense.to(device), result.to(device), kept, affected[0], device)
        return result.cpu()

    def _run(
        self,
        dense: nn.Module,
        network: nn.Module,
        kept: KeptChannels,
        first: int,
        device: torch.device,
    ) -> None:
        """Train all segments from the first one that was slimmed, in place."""
        images = self._images[: self._room(dense, device)].to(device)
        target = value = self._arranged(images)
        generator = torch.Generator().manual_seed(self._seed)
        for index, segment in enumerate(self._segments):
            wanted, own = segment.of(dense), segment.of(network)
            target = self._passed_on(wanted, target)
            if index < first:
                value = target
                continue
            comparable = _same_channels(target, self._passed_on(own, value[:2]), segment, kept)
            if comparable is not None:
                parameters = [
                    parameter
                    for name, module in network.named_modules()
                    if name in segment.own and adapter_of(module) is not None
                    for parameter in module.parameters()
                ]
                self._train(own, parameters, value, comparable, generator)
            value = self._passed_on(own, value)

    def _room(self, dense: nn.Module, device: torch.device) -> int:
        """How many images fit into the memory that is set aside."""
        value, largest = self._images[:1].to(device), self._images[:1].nbytes
        for segment in self._segments:
            value = self._passed_on(segment.of(dense), value)
            largest = max(largest, value.nbytes)
        return max(self._schedule.batch_size, _MOST_BYTES // largest)

    @torch.no_grad()
    def _passed_on(self, segment: nn.Module, values: Tensor) -> Tensor:
        """What a segment makes of all ``values`` [N, ...]."""
        # A segment may overwrite its input.
        pieces = values.split(self._schedule.batch_size)
        outputs = [segment(piece.clone()) for piece in pieces]
        return self._arranged(torch.cat(outputs))

    def _arranged(self, values: Tensor) -> Tensor:
        """Values [N, ...] in the order of memory that networks run with."""
        if values.ndim != 4 or not self._channels_last:
            return values.contiguous()
        return values.contiguous(memory_format=torch.channels_last)

    def _train(
        self,
        segment: nn.Module,
        parameters: list[nn.Parameter],
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Train one segment in place, unless that does not help on images held out."""
        count = len(inputs)
        # A segment is never judged by nothing.
        held_out = max(1, int(count * self._schedule.held_out))
        order = torch.randperm(count, generator=generator).to(inputs.device)
        learned, judged = order[held_out:], order[:held_out]
        if not len(learned):
            return
        before = [parameter.detach().clone() for parameter in parameters]
        error = self._error(segment, inputs, targets, judged)
        for parameter in parameters:
            parameter.requires_grad_(True)
        self._descend(segment, parameters, inputs, targets, learned, generator)
        for parameter in parameters:
            parameter.requires_grad_(False)
        if not self._error(segment, inputs, targets, judged) <= error:
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)

    def _descend(
        self,
        segment: nn.Module,
        parameters: list[nn.Parameter],
        inputs: Tensor,
        targets: Tensor,
        chosen: Tensor,
        generator: torch.Generator,
    ) -> None:
        schedule = self._schedule
        size = min(schedule.batch_size, len(chosen))
        optimizer = torch.optim.Adam(parameters, lr=schedule.learning_rate)
        steps = schedule.epochs * (len(chosen) // size)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for batch in _shuffled(chosen, size, schedule.epochs, generator):
            loss = functional.mse_loss(segment(_taken(inputs, batch)), _taken(targets, batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            falling.step()

    @torch.no_grad()
    def _error(self, segment: nn.Module, inputs: Tensor, targets: Tensor, chosen: Tensor) -> float:
        """Squared error over the images ``chosen`` [n]."""
        summed = 0.0
        for batch in chosen.split(self._schedule.batch_size):
            difference = segment(_taken(inputs, batch)) - _taken(targets, batch)
            summed += float(difference.square().sum())
        return summed


def _same_channels(
    target: Tensor, value: Tensor, segment: Segment, kept: KeptChannels
) -> Tensor | None:
    """The part of ``target`` [N, C, ...] that slim values [n, c, ...] are to equal, if any."""
    if target.shape[1:] == value.shape[1:]:
        return target
    units: NDArray[np.int64] | None = next(
        (kept[name][0] for name in segment.output if name in kept and kept[name][0] is not None),
        None,
    )
    if units is None or value.shape[1] % len(units):
        return None
    # After flattening, each channel has become several columns in a row.
    columns = value.shape[1] // len(units)
    chosen = (units[:, None] * columns + np.arange(columns)).ravel()
    if chosen[-1] >= target.shape[1]:
        return None
    part = target[:, torch.from_numpy(chosen).to(target.device)]
    return part if part.shape[1:] == value.shape[1:] else None


def _shuffled(
    chosen: Tensor, size: int, epochs: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches of ``size`` of the indices ``chosen`` [n]; a rest is left out of its epoch."""
    for _ in range(epochs):
        order = torch.randperm(len(chosen), generator=generator).to(chosen.device)
        yield from chosen[order[: len(order) // size * size]].split(size)


def _taken(values: Tensor, batch: Tensor) -> Tensor:
    """A copy of ``values`` [N, ...] at the indices ``batch`` [n], in the same memory format."""
    if values.ndim != 4:
        return values[batch]
    return values.permute(0, 2, 3, 1)[batch].permute(0, 3, 1, 2)
