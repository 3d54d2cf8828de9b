"""What a criterion is, and what it may look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..groups import ChannelGroup
from ..repair.moments import InputMoments

__all__ = ["Criterion", "Evidence", "Ranking", "ScoreCriterion"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What criteria may look at, gathered once per task.

    Attributes:
        network: The dense network, in evaluation mode, float32.
        images: Calibration images, float32 [N, C, H, W]; their labels are not used.
        moments: Of what the readers of groups read, by layer name.
        norms: BatchNorm that directly follows a layer, by layer name.
        seed: For criteria that draw at random.
    """

    network: nn.Module
    images: Tensor
    moments: Mapping[str, InputMoments]
    norms: Mapping[str, str]
    seed: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """What a criterion says of one group.

    Attributes:
        order: The units, the one to keep longest first, int64 [units].
        figures: What agents may read of the group's decision, by name: float64 arrays of any
            shape.
        rescaling: What readers multiply units by when only some stay, float64 [units, units]:
            row w - 1 has the factors of the first w units of ``order``. None for ones.
    """

    order: NDArray[np.int64]
    figures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    rescaling: NDArray[np.float64] | None = None


class Criterion(ABC):
    """Ranks the channels inside a group.

    Attributes:
        name: Kebab-case name, unique among criteria.
    """

    name: str

    @abstractmethod
    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        """Order the units of a group.

        Args:
            group: The group.
            evidence: What may be looked at.

        Returns:
            A permutation of the units, the one to keep longest first, int64 [units].
        """

    def seconds(self, group: ChannelGroup, evidence: Evidence) -> float:
        """About how long ranking a group takes on one core; 0 where that is not worth saying."""
        return 0.0

    def study(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """The order of :meth:`rank`, with whatever else the criterion has to say."""
        return Ranking(self.rank(group, evidence))


class ScoreCriterion(Criterion):
    """A criterion that gives every unit a score of its own; the highest stays longest."""

    @abstractmethod
    def scores(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.float64]:
        """One finite score per unit, float64 [units]."""

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        """Units by falling score; ties in the order of the channels."""
        return np.argsort(-self.scores(group, evidence), kind="stable").astype(np.int64)
