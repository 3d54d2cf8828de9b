"""How much of what a layer computes comes from each channel that it reads, at most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..groups import Member
from ..hooks import hear_calls
from ..layers import multiplier_of, sample_sites

__all__ = ["input_sensitivities"]

# Floats of one block of terms: 64 MB.
_BLOCK = 16_000_000
_BATCH = 16


@torch.inference_mode()
def input_sensitivities(
    network: nn.Module, member: Member, images: Tensor, *, places: int = 1024, seed: int = 0
) -> NDArray[np.float64]:
    """The largest share of any output that ever comes from each unit of a group.

    Baykal, Liebenwein et al. 2020 (arXiv 1911.07412): s_j = max over inputs x and outputs i of
    w_ij a_j(x) / sum_k w_ik a_k(x), for positive and for negative weights apart. A convolution's
    term of a channel sums over its kernel positions, which is what the bound needs when channels
    are sampled (our reading). Negative activations are an input of their own, as in the authors'
    code. Biases do not count.

    Args:
        network: In evaluation mode, float32.
        member: A side of a layer with a weight that reads a group.
        images: float32 [N, C, H, W].
        places: Places of the output map that are looked at per image; all where there are fewer.
        seed: Decides the places.

    Returns:
        In [0, 1], float64 [units].
    """
    result = torch.zeros(len(member.channels), dtype=torch.float64)
    for positive, negative, columns in _terms_of(network, member, images, places, seed):
        for terms in (positive, negative):
            shares = _shares(terms, columns, len(member.channels))
            result = torch.maximum(result, shares.double())
    return np.asarray(result.clamp(max=1.0).numpy())


def _terms_of(
    network: nn.Module, member: Member, images: Tensor, places: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What each input channel adds to each output, block by block.

    Arguments as for :func:`input_sensitivities`.

    Yields:
        The terms of positive and of negative weights (both at least 0), float32
        [channels, rows, outputs] of one convolution group, for activations of one sign; and the
        unit of each channel, int64 [channels], -1 for channels that another group decides.
    """
    layer = network.get_submodule(member.layer)
    adapter = multiplier_of(layer)
    parts, weights = adapter.parts(layer), adapter.weight(layer).detach()
    # A linear layer's kernel has one position.
    weights = weights.reshape(*weights.shape[:2], -1)
    owner = torch.full((int(member.channels.max()) + 1,), -1, dtype=torch.int64)
    for unit, channels in enumerate(member.channels):
        owner[torch.from_numpy(channels)] = unit
    generator = torch.Generator().manual_seed(seed)
    for inputs, size in _inputs_of(network, layer, images):
        sites = sample_sites(len(inputs), size, places * len(inputs), generator)
        patches = adapter.patches(layer, inputs, sites)
        units = torch.full((patches.shape[2],), -1, dtype=torch.int64)
        units[: len(owner)] = owner
        for weight, values, mine in zip(
            weights.chunk(parts), patches.chunk(parts, dim=2), units.chunk(parts), strict=True
        ):
            rows = max(1, _BLOCK // (weight.shape[0] * weight.shape[1]))
            for block in values.split(rows):
                for activations in (block.clamp(min=0), (-block).clamp(min=0)):
                    if activations.any():
                        yield (
                            _terms(weight.clamp(min=0), activations),
                            _terms((-weight).clamp(min=0), activations),
                            mine,
                        )


def _terms(weight: Tensor, activations: Tensor) -> Tensor:
    """[channels, rows, outputs] of weights [outputs, channels, k], patches [rows, k, channels]."""
    return torch.bmm(activations.permute(2, 0, 1), weight.permute(1, 2, 0))


def _shares(terms: Tensor, columns: Tensor, units: int) -> Tensor:
    """The largest share of each unit, float32 [units]."""
    total = terms.sum(dim=0)
    mine = columns >= 0
    by_unit = terms.new_zeros(units, *terms.shape[1:]).index_add_(0, columns[mine], terms[mine])
    shares = torch.where(total > 0, by_unit / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    return shares.flatten(1).amax(dim=1)


def _inputs_of(
    network: nn.Module, layer: nn.Module, images: Tensor
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """What a layer reads in each of its calls, and the size of the map that it writes."""
    adapter = multiplier_of(layer)
    for batch in images.split(_BATCH):
        seen: list[tuple[Tensor, tuple[int, int]]] = []

        def keep(
            module: nn.Module,
            inputs: Tensor,
            output: Tensor,
            seen: list[tuple[Tensor, tuple[int, int]]] = seen,
        ) -> None:
            # What follows may work in place on what the layer has read.
            seen.append((inputs.clone(), adapter.map_size(output)))

        handle = hear_calls(layer, keep)
        try:
            network(batch)
        finally:
            handle.remove()
        yield from seen
