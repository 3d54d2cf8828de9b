"""What the loss loses, and how much flatter it gets, when a neuron goes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..groups import ChannelGroup, Member
from ..layers import multiplier_of, multiplies
from .criterion import Evidence, ScoreCriterion
from .curvature import Factors, kronecker_factors, largest_eigenvalue
from .magnitude import L1

__all__ = ["Kfac", "flatness_gains", "neuron_costs"]


class Kfac(ScoreCriterion):
    """Second-order cost of a neuron, less what its removal takes off the spectral radius.

    Ebrahimi & Klabjan 2021 (arXiv 2111.08577) prune neurons by K-FAC curvature and look for flat
    solutions through the spectral radius of the Hessian; their formulas were not readable to us,
    and these are our reading. With Kronecker factors A of what a layer reads and G of the gradient
    at what it writes, removing neuron i with incoming weights w_i (and bias) costs
    1/2 (w_i^T A w_i) G_ii, as in optimal brain damage, and deletes row and column i of G, which
    cannot raise its largest eigenvalue. Both are taken as fractions: of the group's whole cost, and
    of the layer's spectral radius.

    Args:
        flatness: Weight of the spectral radius, at least 0.
        images: Calibration images.

    Raises:
        ValueError: If ``flatness`` or ``images`` is out of range.
    """

    name = "kfac"

    def __init__(self, flatness: float = 0.1, images: int = 256) -> None:
        if flatness < 0:
            raise ValueError("flatness must be at least 0")
        if images < 1:
            raise ValueError("images must be at least 1")
        self._flatness = flatness
        self._images = images

    def scores(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.float64]:
        """Costs less gains, summed over the layers that produce the group."""
        producers = [m for m in group.producers() if _has_dense_weight(evidence, m)]
        if not producers:
            return L1().scores(group, evidence)
        factors = kronecker_factors(
            evidence.network,
            [member.layer for member in producers],
            evidence.images[: self._images],
            seed=evidence.seed,
        )
        costs = torch.zeros(group.size, dtype=torch.float64)
        gains = torch.zeros(group.size, dtype=torch.float64)
        for member in producers:
            found = factors[member.layer]
            units = torch.from_numpy(member.channels)
            layer = evidence.network.get_submodule(member.layer)
            costs += neuron_costs(layer, found)[units].sum(dim=1)
            gains += flatness_gains(found)[units].sum(dim=1)
        total = costs.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return np.asarray((costs / total - self._flatness * gains / len(producers)).numpy())


def neuron_costs(layer: nn.Module, factors: Factors) -> Tensor:
    """1/2 (w_i^T A w_i) G_ii of every output, float64 [O].

    Args:
        layer: A convolution in one group, or a linear layer.
        factors: Its factors.
    """
    adapter = multiplier_of(layer)
    weight, bias = adapter.weight(layer).detach().double().flatten(1), adapter.bias(layer)
    last = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    whole = torch.cat([weight, last[:, None]], dim=1)
    return ((whole @ factors.inputs) * whole).sum(dim=1) * factors.outputs.diagonal() / 2


def flatness_gains(factors: Factors) -> Tensor:
    """The share of the largest eigenvalue of G that removing each output takes off, float64 [O].

    Exact up to 128 outputs. Beyond, the eigenvector without the output gives a lower bound of what
    remains (Rayleigh's quotient), and the gain is that much too high at most.
    """
    outputs = factors.outputs
    count = len(outputs)
    whole = largest_eigenvalue(outputs)
    if whole <= 0.0 or count < 2:
        return outputs.new_zeros(count)
    if count <= 128:
        others = [torch.arange(count) != index for index in range(count)]
        left = outputs.new_tensor([largest_eigenvalue(outputs[o][:, o]) for o in others])
    else:
        vector = torch.linalg.eigh(outputs).eigenvectors[:, -1]
        square = vector * vector
        product = outputs @ vector
        # v without entry i, and G without row and column i.
        quadratic = whole - 2 * vector * product + square * outputs.diagonal()
        left = quadratic / (1 - square).clamp(min=1e-12)
    return (1 - left / whole).clamp(min=0.0, max=1.0)


def _has_dense_weight(evidence: Evidence, member: Member) -> bool:
    layer = evidence.network.get_submodule(member.layer)
    return multiplies(layer) and multiplier_of(layer).parts(layer) == 1
