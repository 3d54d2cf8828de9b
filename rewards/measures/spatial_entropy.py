"""Spatial entropy of a candidate's activation maps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import EvaluationError, MeasureError, SpecError
from . import histograms
from .entropy import EntropyMeasure
from .taps import activation_modules

__all__ = ["SpatialEntropy", "SpatialEntropy256"]

# Relative entropy of smaller maps says nothing: they have too few pairs, most of them at a border.
_SMALLEST_MAP = 4
# A table per channel of more levels takes more memory than the networks themselves.
_MOST_BINS_PER_CHANNEL = 32
_MOST_CELLS_AT_ONCE = 1 << 23


class SpatialEntropy(EntropyMeasure):
    """How unpredictable activations are from their neighbours.

    Mean over the two neighbour directions, then over the maps of a layer, then over layers. Layers
    are the outputs of rectifier modules (of convolutions in a network without such modules) with
    maps of at least 4x4. Grey levels lie between the least and the greatest value that the dense
    network's layer has on the same images, so rescaling activations cannot lower the entropy.

    The source (Musat & Andonie 2023, arXiv 2312.04918) leaves bins, maps, pooling and layers open;
    the defaults are our choice.

    Args:
        bins: Grey levels, 2 to 256; at most 32 with ``map="channel"``, because each channel has a
            table of ``bins * bins`` counts.
        normalise: Relative entropy in [0, 1] (the aura-matrix entropy of four neighbours); if not,
            the bivariate entropy in nats, between 0 and ``2 log(bins)``.
        map: ``channel``, each channel is a map; ``channel-mean``, a layer's mean over channels is
            its only map.
        pool: ``batch``, one table over all images per map; ``image``, one per image, averaged.
        images: Only the first so many validation images are looked at.
        grid: With one table per channel over all images, count pairs at about ``grid`` x ``grid``
            evenly spaced sites of each map, so that maps of all sizes give equally many pairs and
            equal bias; 0 counts every pair. Not read for other maps and pools: they have few pairs.
        guard: Leave constant maps out of a layer's mean, and give a layer of only constant maps
            the greatest entropy there is. Otherwise a dead layer, which has entropy 0, would be the
            trivial optimum.
        column: Name of the number in an evaluation; the measure's name when left out.

    Raises:
        SpecError: If a parameter is out of range.
    """

    name = "spatial-entropy"

    def __init__(
        self,
        bins: int = 16,
        normalise: bool = True,
        map: Literal["channel", "channel-mean"] = "channel",
        pool: Literal["batch", "image"] = "batch",
        images: int = 64,
        grid: int = 8,
        guard: bool = True,
        column: str | None = None,
    ) -> None:
        most = _MOST_BINS_PER_CHANNEL if map == "channel" else 256
        if not 2 <= bins <= most:
            raise SpecError(
                f"The measure {self.name!r} takes bins from 2 to {most} with map={map!r}, "
                f"not {bins}."
            )
        if map not in ("channel", "channel-mean") or pool not in ("batch", "image"):
            raise SpecError(
                f"The measure {self.name!r} takes map 'channel' or 'channel-mean' and pool 'batch' "
                f"or 'image', not {map!r} and {pool!r}."
            )
        self.bins = bins
        self.normalise = normalise
        self.map = map
        self.pool = pool
        self.column = column or self.name
        self._ranges: dict[str, tuple[float, float]] = {}
        super().__init__(images, grid, guard)
        if map == "channel-mean" or pool == "image":
            self.grid = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column of this measure."""
        return (self.column,)

    def reset(self) -> None:
        """Forget the counts of the last candidate."""
        super().reset()
        self._tables: dict[str, Tensor] = {}
        self._values: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def find_sites(self, network: nn.Module) -> tuple[tuple[str, ...], bool]:
        """The outputs of rectifiers; see :class:`TappedMeasure`."""
        return activation_modules(network), False

    def learn(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Find each layer's range on the first images; see :class:`TappedMeasure`."""
        self._ranges = {}
        self._seen = 0
        self.listen(network, self._widen)
        for images in batches:
            network(images[: self.images - self._seen])
            self.next_pass()
            self._seen += len(images)
            if self._seen >= self.images:
                break
        if not self._ranges:
            raise MeasureError(
                self.name, f"it has no activation map of at least {_SMALLEST_MAP}x{_SMALLEST_MAP}"
            )

    def compute(self) -> dict[str, float]:
        """The mean over layers; not-a-number when no image was seen."""
        layers = [self._layer_mean(*self._entropies(self._tables[site])) for site in self._tables]
        for parts in self._values.values():
            values, alive = (torch.cat(part) for part in zip(*parts, strict=True))
            layers.append(self._layer_mean(values, alive))
        return {self.column: self.mean(layers)}

    def _maps(self, tensor: Tensor) -> Tensor | None:
        """The maps ``[n, C or 1, H, W]`` of the images still to be looked at, if there are any."""
        if tensor.ndim != 4 or min(tensor.shape[2:]) < _SMALLEST_MAP:
            return None
        maps = self.unseen(tensor)
        if maps is None or self.map == "channel":
            return maps
        sites = maps.permute(0, 2, 3, 1).float()
        # As a matrix product this is twice as fast as mean() over the innermost dimension.
        weights = sites.new_full((sites.shape[-1],), 1 / sites.shape[-1])
        return (sites @ weights).unsqueeze(1)

    def _widen(self, site: str, tensor: Tensor) -> None:
        maps = self._maps(tensor)
        if maps is not None:
            low, high = (float(limit) for limit in torch.aminmax(maps))
            if not math.isfinite(low) or not math.isfinite(high):
                raise EvaluationError(
                    f"The dense network's layer {site!r} has activations that are not finite; "
                    "check its weights."
                )
            known = self._ranges.get(site, (low, high))
            self._ranges[site] = (min(low, known[0]), max(high, known[1]))

    def hear(self, site: str, tensor: Tensor) -> None:
        """Count pairs of levels in a layer's maps; see :class:`TappedMeasure`."""
        maps = self._maps(tensor)
        if maps is None or site not in self._ranges:
            return
        low, high = self._ranges[site]
        if self.pool == "batch":
            tables = histograms.joint_tables(maps, low, high, self.bins, self.grid)
            known = self._tables.get(site)
            self._tables[site] = tables if known is None else known + tables
            return
        flat = maps.flatten(0, 1).unsqueeze(0)
        for part in flat.split(max(1, _MOST_CELLS_AT_ONCE // self.bins**2), dim=1):
            tables = histograms.joint_tables(part, low, high, self.bins)
            self._values.setdefault(site, []).append(self._entropies(tables))

    def _entropies(self, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy of each map, float64 ``[C]``, and whether it is not constant, bool ``[C]``."""
        pairs = histograms.bivariate_entropy(tables)
        entropy = histograms.relative_entropy(tables, pairs) if self.normalise else pairs
        return entropy.mean(dim=1), (pairs > 0).any(dim=1)

    def _layer_mean(self, values: Tensor, alive: Tensor) -> float:
        if not self.guard:
            return float(values.mean())
        if not alive.any():
            return 1.0 if self.normalise else 2 * math.log(self.bins)
        return float(values[alive].mean())


class SpatialEntropy256(SpatialEntropy):
    """Bivariate entropy at 256 grey levels, not normalised: the variant of the earlier papers.

    One map per layer, the mean over its channels: a table of 65,536 counts per channel would not
    fit into memory, and the maps of those papers are aggregated over channels too (our reading).

    Args:
        images: Only the first so many validation images are looked at.
        guard: As for :class:`SpatialEntropy`.
    """

    name = "spatial-entropy-256"

    def __init__(self, images: int = 64, guard: bool = True) -> None:
        super().__init__(
            bins=256, normalise=False, map="channel-mean", pool="batch", images=images, guard=guard
        )
