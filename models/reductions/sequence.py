"""The reductions of one network, applied one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from torch import nn

from ..space import Candidate, SearchSpace
from .channels import KeptChannels
from .reduction import Reduction

__all__ = ["Reductions"]


class Reductions:
    """All reductions of a network; a candidate is split among them.

    Args:
        reductions: In the order in which they are applied, which is the order of their decisions
            in the search space. At most one of them may remove channels.

    Raises:
        ValueError: If two decisions have one name.
    """

    def __init__(self, reductions: Sequence[Reduction]) -> None:
        self._reductions = tuple(reductions)

    @cached_property
    def space(self) -> SearchSpace:
        """The decisions of all reductions."""
        return SearchSpace(tuple(each for one in self._reductions for each in one.decisions))

    def apply(self, network: nn.Module, candidate: Candidate) -> nn.Module:
        """The physically smaller network; see :meth:`Reduction.apply`.

        Raises:
            ValueError: If there is no such candidate.
        """
        for reduction, values in self._parts(candidate):
            network = reduction.apply(network, values)
        return network

    def kept_channels(self, network: nn.Module, candidate: Candidate) -> KeptChannels:
        """Which channels of every layer stay; see :meth:`Reduction.kept_channels`.

        Args:
            network: The dense network.
            candidate: One value per decision.

        Raises:
            ValueError: If there is no such candidate.
        """
        kept: KeptChannels = {}
        for reduction, values in self._parts(candidate):
            kept.update(reduction.kept_channels(network, values))
        return kept

    def _parts(self, candidate: Candidate) -> Iterator[tuple[Reduction, Candidate]]:
        self.space.check(candidate)
        start = 0
        for reduction in self._reductions:
            end = start + len(reduction.decisions)
            yield reduction, tuple(candidate[start:end])
            start = end
