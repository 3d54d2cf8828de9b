"""Entropy of the ON/OFF states of rectified neurons."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...errors import MeasureError
from .entropy import EntropyMeasure
from .taps import pre_activation_modules

__all__ = ["NeuronEntropy", "state_counts", "state_entropy"]


def state_counts(pre_activations: Tensor) -> Tensor:
    """How often each neuron is ON and OFF.

    Args:
        pre_activations: ``[N, C, ...]`` or ``[N, C]``, any floating type: what enters a rectifier.

    Returns:
        Counts ``[2, C]``, int64: of values above 0 (ON) and below 0 (OFF). Exact zeros have no
        state and are not counted.
    """
    values = pre_activations.movedim(1, -1).float()
    # Through a matrix product with ones this is five times as fast as sum() over booleans, and
    # exact: float32 counts up to 2**24 without rounding, and no slice here has more rows.
    rows = values.reshape(-1, values.shape[-1])
    counts = torch.zeros(2, rows.shape[1], dtype=torch.int64, device=rows.device)
    for part in rows.split(1 << 24):
        ones = part.new_ones(1, len(part))
        counts[0] += (ones @ (part > 0).float()).long()[0]
        counts[1] += (ones @ (part < 0).float()).long()[0]
    return counts


def state_entropy(counts: Tensor) -> Tensor:
    """Entropy of each neuron's state.

    ``-p log2 p - (1 - p) log2 (1 - p)`` with ``p`` the share of ON among the states that are not
    zero (EASIER, arXiv 2404.18949); 0 for a neuron that is always ON, always OFF or always zero.

    Args:
        counts: ``[2, C]`` as from :func:`state_counts`.

    Returns:
        Bits in [0, 1], float64 ``[C]``.
    """
    shares = counts.double() / counts.sum(dim=0).clamp(min=1)
    return torch.special.entr(shares).sum(dim=0) / math.log(2)


class NeuronEntropy(EntropyMeasure):
    """Mean over layers of the mean entropy of a layer's neurons, in bits, in [0, 1].

    A neuron is a channel: its ON probability is taken over images and positions (NEPENTHE, arXiv
    2404.16890). Layers are the rectifier modules, read at their input; in a network without such
    modules the outputs of normalisations, else of convolutions.

    Args:
        images: Only the first so many validation images are looked at.
        grid: In maps, look at about ``grid`` x ``grid`` evenly spaced positions; 0 for all.
        guard: Leave neurons that are never ON out of a layer's mean, and give a layer of only such
            neurons the greatest entropy, 1. Otherwise a dead layer, which has entropy 0, is the
            trivial optimum (our choice; NEPENTHE states none).

    Raises:
        SpecError: If a parameter is out of range.
    """

    name = "neuron-entropy"

    def __init__(self, images: int = 64, grid: int = 8, guard: bool = True) -> None:
        super().__init__(images, grid, guard)

    def reset(self) -> None:
        """Forget the counts of the last candidate."""
        super().reset()
        self._counts: dict[str, Tensor] = {}

    def find_sites(self, network: nn.Module) -> tuple[tuple[str, ...], bool]:
        """What enters the rectifiers; see :class:`TappedMeasure`."""
        return pre_activation_modules(network)

    def learn(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Make sure that there is something to hear; see :class:`TappedMeasure`."""
        self.listen(network, self.hear)
        for images in batches:
            network(images[: self.images])
            if not self._counts:
                raise MeasureError(self.name, "none of its rectifiers that are modules is called")
            break

    def compute(self) -> dict[str, float]:
        """The mean over layers; not-a-number when no image was seen."""
        layers = [self._layer_mean(counts) for counts in self._counts.values()]
        return {self.name: self.mean(layers)}

    def _layer_mean(self, counts: Tensor) -> float:
        entropies = state_entropy(counts)
        if not self.guard:
            return float(entropies.mean())
        alive = counts[0] > 0
        return float(entropies[alive].mean()) if alive.any() else 1.0

    def hear(self, site: str, tensor: Tensor) -> None:
        """Count the states of a layer's neurons; see :class:`TappedMeasure`."""
        values = self.unseen(tensor)
        if values is None:
            return
        if values.ndim == 4 and self.grid:
            rows = max(1, values.shape[2] // self.grid)
            columns = max(1, values.shape[3] // self.grid)
            values = values[:, :, ::rows, ::columns]
        counts = state_counts(values)
        known = self._counts.get(site)
        self._counts[site] = counts if known is None else known + counts
