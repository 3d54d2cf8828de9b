"""Greedy elimination: remove, again and again, what the remaining channels replace best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..groups import ChannelGroup, Member
from ..layers import averager_of, multiplier_of
from ..repair.moments import LayerMoments, SampledMoments, weight_matrix
from .criterion import Criterion, Evidence
from .magnitude import L1

__all__ = ["ActivationResidual"]

# Numbers that the elimination of one group goes over at most: some ten seconds on one core.
_MOST_WORK = 8e9
# Of one step, for each weight, against each entry of the precision matrix.
_WORK_PER_WEIGHT = 4
_WORK_PER_SECOND = 4e8


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
        steps = max(1, int(_MOST_WORK // max(_work_of_step(group, evidence), 1)))
        alive = np.arange(group.size)
        removed: list[int] = []
        while len(alive) > 1:
            units = torch.from_numpy(alive)
            growth = torch.stack([state.growth(units) for state in states]).sum(dim=0)
            count = min(-(-group.size // steps), len(alive) - 1)
            # With one unit a step this is the first of the smallest.
            least = growth.numpy().argsort(kind="stable")[:count]
            for unit in alive[least].tolist():
                removed.append(unit)
                for state in states:
                    state.remove(unit)
            alive = np.delete(alive, least)
        return np.array([*alive, *reversed(removed)], dtype=np.int64)

    def seconds(self, group: ChannelGroup, evidence: Evidence) -> float:
        """By the numbers that the elimination goes over."""
        return min(_MOST_WORK, group.size * _work_of_step(group, evidence)) / _WORK_PER_SECOND


def _work_of_step(group: ChannelGroup, evidence: Evidence) -> float:
    """Numbers that removing one unit goes over: precision matrices and weights of all readers."""
    work = 0.0
    for member in group.readers():
        moments = evidence.moments.get(member.layer)
        if isinstance(moments, LayerMoments):
            weight = evidence.network.get_submodule(member.layer).get_parameter("weight")
            work += moments.covariance.numel() + _WORK_PER_WEIGHT * weight.numel()
    return work


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


@dataclass
class _Contributions:
    """A reader of which no precision matrix is known: what units add to its outputs.

    Attributes:
        energy: E |W_c x_c|^2 of each unit, float64 [units].
    """

    energy: Tensor

    @classmethod
    def of(cls, columns: Tensor, weight: Tensor, sample: Tensor) -> _Contributions:
        """Of units with ``columns`` [units, B], for weights [R, D] and inputs [rows, D]."""
        outputs = (sample[:, each].double() @ weight[:, each].mT for each in columns)
        return cls(torch.stack([each.square().sum(dim=1).mean() for each in outputs]))

    def growth(self, units: Tensor) -> Tensor:
        """What removing each of ``units`` [U] would take away, float64 [U]."""
        return self.energy[units]

    def remove(self, unit: int) -> None:
        """Nothing: the others are not repaired."""


def _reader_states(member: Member, evidence: Evidence) -> list[_ReaderState | _Contributions]:
    layer = evidence.network.get_submodule(member.layer)
    own = multiplier_of(layer).weight(layer).detach().double()
    moments = evidence.moments[member.layer]
    weight = own * _output_scale(own.dim(), member.layer, evidence)
    channels = weight.shape[1]
    parts = len(moments.mean)
    states: list[_ReaderState | _Contributions] = []
    for part, rows in enumerate(weight.chunk(parts)):
        columns = _unit_columns(member, part, parts, channels, moments.per_channel)
        matrix = weight_matrix(rows, moments.per_channel)
        if isinstance(moments, LayerMoments):
            precision = torch.linalg.inv(moments.with_ridge(part))
            states.append(_ReaderState(columns, matrix, precision))
        elif isinstance(moments, SampledMoments):
            states.append(_Contributions.of(columns, matrix, moments.sample))
    return states


def _output_scale(dimensions: int, name: str, evidence: Evidence) -> Tensor:
    """What a following BatchNorm multiplies each output by, float64 [outputs, 1, ...]."""
    shape = (-1, *(1,) * (dimensions - 1))
    if name not in evidence.norms:
        return torch.ones(1, dtype=torch.float64).view(shape)
    norm = evidence.network.get_submodule(evidence.norms[name])
    return averager_of(norm).scale(norm).detach().double().view(shape)


def _unit_columns(member: Member, part: int, parts: int, channels: int, per_channel: int) -> Tensor:
    """Columns of each unit in one convolution group, int64 [units, B]."""
    owned = torch.from_numpy(member.channels)
    if parts > 1:
        inside = (owned >= part * channels) & (owned < (part + 1) * channels)
        owned = (owned[inside] - part * channels).view(len(owned), -1)
    return (owned[:, :, None] * per_channel + torch.arange(per_channel)).flatten(1)
