"""Curvature of the loss in each layer: Kronecker factors of the Fisher matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..hooks import hear_calls
from ..layers import Sites, multiplier_of, sample_sites
from ..repair.patches import layer_patches

__all__ = ["Factors", "kronecker_factors", "largest_eigenvalue"]


@dataclass(frozen=True, eq=False)
class Factors:
    """The block of one layer: F is about inputs (x) outputs (Martens & Grosse 2015).

    The spectral radius of the block is the product of the factors' largest eigenvalues.

    Attributes:
        inputs: E of the sum over places of a a^T, where a is what the layer reads at a place and a
            final 1 for the bias; float64 [D + 1, D + 1] with D = input channels x kernel positions.
        outputs: Mean over places of E g g^T, where g is the gradient of the loss at what the layer
            writes; float64 [O, O].
    """

    inputs: Tensor
    outputs: Tensor


def largest_eigenvalue(matrix: Tensor) -> float:
    """Of a symmetric positive semi-definite matrix, float64 [n, n]."""
    return float(torch.linalg.eigvalsh(matrix)[-1].clamp(min=0.0))


def kronecker_factors(
    network: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    *,
    seed: int,
    places: int = 64,
    batch_size: int = 64,
) -> dict[str, Factors]:
    """Factors of layers, with labels drawn from what the network predicts.

    Convolutions follow Grosse & Martens 2016 (arXiv 1602.01407): places of a map are taken for
    independent and alike. Labels from the model's own distribution make this the Fisher matrix and
    not the empirical one, and no labels of the data are used.

    Args:
        network: In evaluation mode, float32; it is not changed.
        layers: Names of convolutions in one group, and of linear layers.
        images: float32 [N, C, H, W].
        seed: Draws labels and places.
        places: Places of a map that are looked at per image; all where there are fewer.
        batch_size: Images of a pass.
    """
    generator = torch.Generator().manual_seed(seed)
    recorders = {name: _Recorder(network.get_submodule(name), places, seed) for name in layers}
    handles = [
        hear_calls(network.get_submodule(name), recorder.forward)
        for name, recorder in recorders.items()
    ]
    try:
        with torch.enable_grad():
            for batch in images.split(batch_size):
                # Weights need no gradient, so the graph begins at the image.
                logits = network(batch.clone().requires_grad_())
                labels = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
                loss = functional.cross_entropy(logits, labels, reduction="sum")
                written = {
                    name: recorder.output
                    for name, recorder in recorders.items()
                    if recorder.output is not None and recorder.output.requires_grad
                }
                gradients = torch.autograd.grad(loss, list(written.values()), allow_unused=True)
                for name, gradient in zip(written, gradients, strict=True):
                    if gradient is not None:
                        recorders[name].backward(gradient)
    finally:
        for handle in handles:
            handle.remove()
    return {name: recorder.factors(len(images)) for name, recorder in recorders.items()}


class _Recorder:
    """Sums of one layer over batches."""

    def __init__(self, layer: nn.Module, places: int, seed: int) -> None:
        self._layer = layer
        self._adapter = multiplier_of(layer)
        self._places = places
        self._generator = torch.Generator().manual_seed(seed)
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._sites: Sites | None = None
        self._rows = 0
        self.output: Tensor | None = None

    def forward(self, module: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        height, width = self._adapter.map_size(output)
        count = min(self._places, height * width) * len(output)
        sites = sample_sites(len(output), (height, width), count, self._generator)
        patches = layer_patches(self._layer, inputs.detach(), sites).double()
        ones = patches.new_ones(len(patches), 1)
        vectors = torch.cat([patches, ones], dim=1)
        # Sampled places stand for all.
        weight = height * width * len(output) / len(vectors)
        found = weight * (vectors.mT @ vectors)
        self._inputs = found if self._inputs is None else self._inputs + found
        self._sites = sites
        self.output = output
        # What follows may work in place, which would change what gradients are taken of.
        return output.clone()

    def backward(self, gradient: Tensor) -> None:
        assert self._sites is not None
        vectors = self._adapter.outputs_at(gradient, self._sites).double()
        found = vectors.mT @ vectors
        self._outputs = found if self._outputs is None else self._outputs + found
        self._rows += len(vectors)

    def factors(self, images: int) -> Factors:
        assert self._inputs is not None
        outputs = self._outputs
        if outputs is None:
            size = self._adapter.weight(self._layer).shape[0]
            return Factors(self._inputs / images, torch.zeros(size, size, dtype=torch.float64))
        return Factors(self._inputs / images, outputs / self._rows)
