"""What a reduction is: it owns one kind of decision and applies it to a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from ..space import Candidate, Decision

if TYPE_CHECKING:
    from .channels import KeptChannels

__all__ = ["Reduction"]


class Reduction(ABC):
    """Applies the decisions of one kind to a network physically.

    A reduction is made for one network, and knows which decisions that network has. ``values``
    holds one whole number for each of them, in their order; the search space has checked them.

    Attributes:
        kind: Of its decisions, unique among reductions.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions of this kind, in the order of the values."""

    @abstractmethod
    def apply(self, network: nn.Module, values: Candidate) -> nn.Module:
        """The physically smaller network.

        Args:
            network: The network that the reduction was made for, perhaps after other reductions
                or with other weights; it is not changed.
            values: One for each decision.

        Returns:
            A network with the same module names, of those modules that are left. It may share
            with ``network`` what does not change.
        """

    @abstractmethod
    def oracle(self, network: nn.Module, values: Candidate) -> nn.Module:
        """A network whose outputs must equal those of :meth:`apply`, made in a simple, slow way.

        Arguments as for :meth:`apply`. It shares nothing with ``network``.
        """

    def kept_channels(self, network: nn.Module, values: Candidate) -> KeptChannels:
        """Which channels of every layer :meth:`apply` keeps, for repairs.

        Arguments as for :meth:`apply`. A reduction that removes no channels need not say anything.

        Returns:
            Per layer, ascending int64 indices of the output and the input channels that stay; None
            where all of them stay. Layers that keep everything may be left out.
        """
        return {}
