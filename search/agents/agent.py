"""What an agent is: it proposes candidates and learns from how they are judged."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...envs.judge import Judge
from ...envs.problem import Outcome, Problem

__all__ = ["Agent", "BlackBoxAgent", "Iteration"]

_STATE = "agent.pickle"


@dataclass(frozen=True)
class Iteration:
    """Candidates that an agent asked for together.

    Attributes:
        candidates: int64 [N, D]; N is 0 where the agent has nothing more to ask.
        outcome: How they were judged; ``None`` for N = 0.
        figures: Numbers of the agent itself, for the log (multipliers, losses, ...).
    """

    candidates: NDArray[np.int64]
    outcome: Outcome | None
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def nothing(cls, problem: Problem) -> Iteration:
        """What an agent returns that has nothing more to ask."""
        return cls(np.zeros((0, len(problem.space)), dtype=np.int64), None)


class Agent(ABC):
    """Proposes candidates, iteration by iteration, and learns from how they are judged.

    All randomness comes from the seed, so that equal problems and seeds give equal candidates,
    also across `save` and `load`. An agent takes further parameters as typed keywords, or as one
    keyword ``parameters`` whose type it names in a class attribute ``Parameters``, a frozen
    dataclass.

    Attributes:
        name: Its name in specs.
        judge: Judges what the agent asks for, and knows what it has asked for so far.
        problem: What is searched.
        seed: Seeds all of the agent's randomness.
        evaluations: Candidates that it may ask for in all.

    Args:
        judge: Judges candidates; its past is that of this search.
        seed: Seeds all of the agent's randomness.
        evaluations: Candidates that it may ask for in all.
    """

    name: ClassVar[str]
    follows_ranges: ClassVar[bool] = False
    """Whether it searches for all limits of a range, and not for a single one."""

    def __init__(self, judge: Judge, seed: int, evaluations: int) -> None:
        self.judge = judge
        self.problem = judge.problem
        self.seed = seed
        self.evaluations = evaluations

    @abstractmethod
    def iterate(self, most: int) -> Iteration:
        """Ask for at most ``most`` candidates, 0 or more, and learn from them.

        An agent that is not out of candidates asks for ``most`` where that is less than what it
        asks for at a time, so that a search uses up what it may.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs to continue as if nothing had happened."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""

    def stop(self) -> None:
        """Give back what the agent holds; it is not used afterwards."""
        return


class BlackBoxAgent(Agent):
    """An agent that only proposes candidates and is told how they were judged.

    Args:
        judge: Judges candidates.
        seed: Seeds all of the agent's randomness.
        evaluations: Candidates that it may ask for in all.
        candidates: Candidates of one iteration, evaluated in parallel; at least 1.
    """

    def __init__(self, judge: Judge, seed: int, evaluations: int, candidates: int = 32) -> None:
        super().__init__(judge, seed, evaluations)
        if candidates < 1:
            raise ValueError("candidates must be at least 1")
        self.candidates = candidates

    @abstractmethod
    def ask(self, count: int) -> NDArray[np.int64]:
        """Propose at most ``count`` candidates; int64 [N, D], N = 0 when there are no more."""

    @abstractmethod
    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """Learn how the candidates of the last `ask`, all of them and in order, were judged."""

    @abstractmethod
    def get_state(self) -> Any:
        """Everything that `ask` depends on; must pickle."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Continue from what `get_state` returned."""

    def iterate(self, most: int) -> Iteration:
        """See `Agent.iterate`."""
        if not most or not len(candidates := self.ask(min(most, self.candidates))):
            return Iteration.nothing(self.problem)
        outcome = self.judge.ask(candidates)
        self.tell(candidates, outcome)
        return Iteration(candidates, outcome)

    def save(self, folder: Path) -> None:
        """See `Agent.save`."""
        (folder / _STATE).write_bytes(pickle.dumps(self.get_state()))

    def load(self, folder: Path) -> None:
        """See `Agent.load`."""
        self.set_state(pickle.loads((folder / _STATE).read_bytes()))
