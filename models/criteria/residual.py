"""Greedy elimination: remove, again and again, what the remaining channels replace best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..groups import ChannelGroup, Member
from ..layers import BatchNorm
from ..repair.moments import LayerMoments
from ..repair.quick import covariance_with_ridge
from .criterion import Criterion, Evidence
from .magnitude import L1

__all__ = ["ActivationResidual"]


class ActivationResidual(Criterion):
    """Backward elimination by the error that quick repair would leave.

    A unit's cost is the growth of E |W x - W' x_S|^2 over all layers that read the group, with W'
    repaired by least squares after each removal, and each output weighted by the square of what a
    following BatchNorm multiplies it by. With P the inverse covariance of the columns left, the
    growth by removing columns c is tr(W_c P_cc^-1 W_c^T), which is the block form of the optimal
    brain surgeon (Hassibi & Stork 1993); its use for channels with repair is our choice.
    """

    name = "activation-residual"

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        """Units in the reverse order of their elimination."""
        states = [
            state
            for member in group.readers()
            if member.layer in evidence.moments
            for state in _reader_states(member, evidence)
        ]
        if not states:
            return L1().rank(group, evidence)
        alive = list(range(group.size))
        removed: list[int] = []
        while len(alive) > 1:
            units = torch.tensor(alive)
            growth = torch.stack([state.growth(units) for state in states]).sum(dim=0)
            removed.append(alive.pop(int(growth.argmin())))
            for state in states:
                state.remove(removed[-1])
        return np.array([*alive, *reversed(removed)], dtype=np.int64)


@dataclass
class _ReaderState:
    """One convolution group of one reader, as elimination goes on.

    Attributes:
        columns: Columns of each unit, int64 [units, B].
        weight: Repaired and scaled weights, float64 [R, D]; removed columns are 0.
        precision: Inverse covariance of the columns left, float64 [D, D]; removed ones are 0.
    """

    columns: Tensor
    weight: Tensor
    precision: Tensor

    def growth(self, units: Tensor) -> Tensor:
        """Error that removing each of ``units`` [U] would add, float64 [U]."""
        columns = self.columns[units]
        blocks = self.precision[columns[:, :, None], columns[:, None, :]]
        weights = self.weight[:, columns].permute(1, 2, 0)
        return (weights * torch.linalg.solve(blocks, weights)).sum(dim=(1, 2))

    def remove(self, unit: int) -> None:
        """Take one unit out and repair the others."""
        columns = self.columns[unit]
        rows = self.precision[columns]
        spread = torch.linalg.solve(rows[:, columns], rows)
        self.weight -= self.weight[:, columns] @ spread
        self.precision -= rows.mT @ spread
        self.weight[:, columns] = 0
        self.precision[columns] = 0
        self.precision[:, columns] = 0


def _reader_states(member: Member, evidence: Evidence) -> list[_ReaderState]:
    layer = evidence.network.get_submodule(member.layer)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    moments = evidence.moments[member.layer]
    weight = layer.weight.detach().double() * _output_scale(layer, member.layer, evidence)
    channels = weight.shape[1]
    parts = len(moments.mean)
    return [
        _ReaderState(
            _unit_columns(member, part, parts, channels, moments.per_channel),
            _as_matrix(rows, moments),
            torch.linalg.inv(covariance_with_ridge(moments.covariance[part].double())),
        )
        for part, rows in enumerate(weight.chunk(parts))
    ]


def _output_scale(layer: nn.Conv2d | nn.Linear, name: str, evidence: Evidence) -> Tensor:
    """What a following BatchNorm multiplies each output by, float64 [outputs, 1, ...]."""
    shape = (-1, *(1,) * (layer.weight.dim() - 1))
    if name not in evidence.norms:
        return torch.ones(1, dtype=torch.float64).view(shape)
    norm = evidence.network.get_submodule(evidence.norms[name])
    assert isinstance(norm, BatchNorm)
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    return scale.view(shape)


def _unit_columns(member: Member, part: int, parts: int, channels: int, per_channel: int) -> Tensor:
    """Columns of each unit in one convolution group, int64 [units, B]."""
    owned = torch.from_numpy(member.channels)
    if parts > 1:
        inside = (owned >= part * channels) & (owned < (part + 1) * channels)
        owned = (owned[inside] - part * channels).view(len(owned), -1)
    return (owned[:, :, None] * per_channel + torch.arange(per_channel)).flatten(1)


def _as_matrix(weight: Tensor, moments: LayerMoments) -> Tensor:
    """Weights as rows over the moments' columns: [R, D]."""
    flat = weight.reshape(weight.shape[0], weight.shape[1], -1)
    if flat.shape[2] == moments.per_channel:
        return flat.reshape(len(flat), -1)
    return flat.transpose(1, 2).reshape(-1, flat.shape[1])
