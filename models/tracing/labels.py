"""Labels of channels, and what a forward pass says of them.

Every channel that a layer makes has a number of its own, its label. Beside each tensor of a forward
pass goes a tensor of the same shape that holds, for each value, the label of the channel that the
value belongs to. What merely moves values moves their labels along, so that index maps are exact
whatever a network does to shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FIXED", "Findings", "compact", "distinct", "fixed_like", "varies"]

FIXED = -1
"""The label of values that belong to no channel that can be removed."""


@dataclass
class Findings:
    """What has been found of labels.

    Attributes:
        ties: Pairs of labels whose channels live or die together, int64 [pairs, 2] each.
        sums: Those of ``ties`` that come from adding one to the other.
        fixed: Labels of channels that must stay and the reason why, or None for the outputs of the
            network, which need none.
    """

    ties: list[NDArray[np.int64]] = field(default_factory=list)
    sums: list[NDArray[np.int64]] = field(default_factory=list)
    fixed: list[tuple[NDArray[np.int64], str | None]] = field(default_factory=list)

    def tie(self, one: Tensor, other: Tensor, adds: bool) -> None:
        """Tie labels that meet in one value.

        Args:
            one: Labels, int64 [...].
            other: Labels of the same shape.
            adds: Whether the values are added to each other.
        """
        pairs = torch.stack(compact(one, other)).flatten(1)
        pairs = torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1).numpy()
        loose = (pairs == FIXED).any(axis=0)
        self.fix(pairs[:, loose], "it is combined with channels that cannot be removed")
        tied = pairs[:, ~loose].T
        if len(tied):
            self.ties.append(tied)
            if adds:
                self.sums.append(tied)

    def fix(self, labels: Tensor | NDArray[np.int64], reason: str | None) -> None:
        """Say that the channels of these labels must stay.

        Args:
            labels: Of any shape; those that are ``FIXED`` are left out.
            reason: For people, to follow the name of a layer and a colon.
        """
        found = distinct(labels) if isinstance(labels, Tensor) else np.unique(labels)
        found = found[found != FIXED]
        if len(found):
            self.fixed.append((found, reason))

    def join(self, other: Findings) -> None:
        """Take over what another pass found."""
        self.ties += other.ties
        self.sums += other.sums
        self.fixed += other.fixed


def varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension."""
    return labels.shape[dim] > 1 and bool((labels != labels.narrow(dim, 0, 1)).any())


def compact(*labels: Tensor) -> list[Tensor]:
    """The same labels without the dimensions along which none of them varies.

    Args:
        labels: Tensors of one shape.

    Returns:
        Tensors of one shape with as many dimensions, of which most have size 1.
    """
    narrowed = list(labels)
    for dim in range(labels[0].dim()):
        if not any(varies(each, dim) for each in narrowed):
            narrowed = [each.narrow(dim, 0, min(1, each.shape[dim])) for each in narrowed]
    return narrowed


def distinct(labels: Tensor) -> NDArray[np.int64]:
    """The labels that occur, ascending."""
    found: NDArray[np.int64] = torch.unique(compact(labels)[0]).numpy()
    return found


def fixed_like(values: Tensor) -> Tensor:
    """Labels for values that belong to no channel that can be removed."""
    return torch.full_like(values, FIXED, dtype=torch.int64, requires_grad=False)
