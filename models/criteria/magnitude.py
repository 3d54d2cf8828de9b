"""Criteria that look at weights alone."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..groups import ChannelGroup
from ..layers import averager_of, averages, multiplier_of, multiplies
from .criterion import Criterion, Evidence, ScoreCriterion

__all__ = ["L1", "L2", "BNScale", "GeometricMedian", "Random"]


class FilterCriterion(ScoreCriterion):
    """A score computed from the filters of each producing layer, summed over producers."""

    @abstractmethod
    def score_filters(self, filters: Tensor) -> Tensor:
        """Scores float64 [units] of filters float64 [units, weights per unit]."""

    def scores(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.float64]:
        """Sum over the convolutions and linear layers that produce the group."""
        total = torch.zeros(group.size, dtype=torch.float64)
        for member in group.producers():
            module = evidence.network.get_submodule(member.layer)
            if multiplies(module):
                filters = (
                    multiplier_of(module)
                    .weight(module)
                    .detach()
                    .double()[torch.from_numpy(member.channels)]
                )
                total += self.score_filters(filters.reshape(group.size, -1))
        return total.numpy()


class L1(FilterCriterion):
    """Sum of absolute weights (Li et al. 2017, arXiv 1608.08710)."""

    name = "l1"

    def score_filters(self, filters: Tensor) -> Tensor:
        """L1 norm of each row."""
        return filters.abs().sum(dim=1)


class L2(FilterCriterion):
    """Euclidean norm of the weights (He et al. 2018, arXiv 1808.06866)."""

    name = "l2"

    def score_filters(self, filters: Tensor) -> Tensor:
        """L2 norm of each row."""
        return filters.square().sum(dim=1).sqrt()


class GeometricMedian(FilterCriterion):
    """Distance to all other filters of the layer (FPGM, He et al. 2019, arXiv 1811.00250).

    A filter near the geometric median is one that the others can stand in for.
    """

    name = "geometric-median"

    def score_filters(self, filters: Tensor) -> Tensor:
        """Sum of Euclidean distances to the other rows."""
        return torch.cdist(filters, filters).sum(dim=1)


class BNScale(ScoreCriterion):
    """Absolute BatchNorm scale (Liu et al. 2017, arXiv 1708.06519); L1 where there is no BN."""

    name = "bn-scale"

    def scores(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.float64]:
        """Sum over the BatchNorm layers that the group runs through."""
        total = torch.zeros(group.size, dtype=torch.float64)
        found = False
        for member in group.producers():
            module = evidence.network.get_submodule(member.layer)
            if averages(module) and averager_of(module).is_adjustable(module):
                scale = (
                    module.get_parameter("weight")
                    .detach()
                    .double()[torch.from_numpy(member.channels)]
                )
                total += scale.abs().sum(dim=1)
                found = True
        return total.numpy() if found else L1().scores(group, evidence)


class Random(Criterion):
    """A random order, fixed by the seed: what a criterion has to beat."""

    name = "random"

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        """A permutation drawn from the seed and the group's name."""
        entropy = [evidence.seed, *group.name.encode()]
        return np.random.default_rng(entropy).permutation(group.size).astype(np.int64)
