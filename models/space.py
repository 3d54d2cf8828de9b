"""The search space: decisions, and a candidate as one whole number for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Candidate", "Decision", "Inactive", "SearchSpace"]

Candidate = tuple[int, ...]
"""One whole number per decision, in the order of the decisions.

Agents, histories, the record, surrogates and plots see nothing else of a network.
"""


@dataclass(frozen=True)
class Decision:
    """One whole number to choose.

    Attributes:
        name: Unique in its space; of a channels decision, the layer that produces the channels.
        kind: Which reduction applies it: ``channels``, ...
        size: Its value in the dense network, which is the largest.
        smallest: The smallest value, at least 0 and at most ``size``.

    Raises:
        ValueError: If ``smallest`` is out of range.
    """

    name: str
    kind: str
    size: int
    smallest: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= self.size:
            raise ValueError(
                f"the smallest value of {self.name} is {self.smallest}, not in 0..{self.size}"
            )


@dataclass(frozen=True)
class Inactive:
    """A decision that makes no difference while another one has a certain value.

    Attributes:
        decision: Name of the decision that makes no difference.
        where: Name of the decision that it depends on.
        equals: The value of ``where`` at which it makes none.
    """

    decision: str
    where: str
    equals: int


@dataclass(frozen=True)
class SearchSpace:
    """All decisions of a search.

    Attributes:
        decisions: In the order of a candidate's numbers.
        inactive: Which decisions make no difference when.

    Raises:
        ValueError: If two decisions have one name.
    """

    decisions: tuple[Decision, ...]
    inactive: tuple[Inactive, ...] = ()

    def __post_init__(self) -> None:
        if len(self._position) != len(self.decisions):
            raise ValueError("two decisions of a search space have the same name")

    def __len__(self) -> int:
        return len(self.decisions)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the decisions."""
        return tuple(decision.name for decision in self.decisions)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Values of the dense network, which are the largest, int64 [D]."""
        return np.array([decision.size for decision in self.decisions], dtype=np.int64)

    @cached_property
    def smallest(self) -> NDArray[np.int64]:
        """Smallest values, int64 [D]."""
        return np.array([decision.smallest for decision in self.decisions], dtype=np.int64)

    @property
    def dense(self) -> Candidate:
        """The candidate that is the dense network."""
        return tuple(decision.size for decision in self.decisions)

    def of_kind(self, kind: str) -> NDArray[np.int64]:
        """Positions of the decisions of one kind, ascending, int64 [K]."""
        found = [index for index, each in enumerate(self.decisions) if each.kind == kind]
        return np.array(found, dtype=np.int64)

    def canonical(self, candidates: ArrayLike) -> NDArray[np.int64]:
        """Set what makes no difference to the value of the dense network.

        Candidates that are the same network are then the same numbers, so that none is evaluated
        twice.

        Args:
            candidates: Integers [..., D].

        Returns:
            int64 [..., D].
        """
        rows = np.array(candidates, dtype=np.int64)
        for rule in self.inactive:
            decision = self._position[rule.decision]
            idle = rows[..., self._position[rule.where]] == rule.equals
            rows[..., decision] = np.where(idle, self.sizes[decision], rows[..., decision])
        return rows

    def check(self, candidate: Candidate) -> None:
        """Make sure that there is such a candidate.

        Raises:
            ValueError: If it has another number of values, or one is out of range.
        """
        if len(candidate) != len(self):
            raise ValueError(f"{len(self)} values are needed, {len(candidate)} were given")
        for value, each in zip(candidate, self.decisions, strict=True):
            if not each.smallest <= value <= each.size:
                raise ValueError(
                    f"the value of {each.name} is {value}, not in {each.smallest}..{each.size}"
                )

    def keeping(self, share: float, kinds: Iterable[str]) -> SearchSpace:
        """The same space, of whose decisions at least a share of the size is kept.

        Args:
            share: In [0, 1]; rounded up to whole numbers.
            kinds: Of the decisions that are meant.
        """
        chosen = set(kinds)
        decisions = tuple(
            replace(each, smallest=max(each.smallest, int(np.ceil(share * each.size))))
            if each.kind in chosen
            else each
            for each in self.decisions
        )
        return replace(self, decisions=decisions)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {decision.name: index for index, decision in enumerate(self.decisions)}
