"""The conformance check of agents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..envs.budgets import Budget
from ..envs.judge import Judge
from ..envs.problem import Problem
from ..models.costs.cost import Cost
from ..models.space import Candidate, Decision, SearchSpace
from ..rewards.evaluation.evaluation import Evaluation
from ..rewards.registry import make_reward
from ..search.agents import Agent
from .expecting import expect

__all__ = ["check_agent"]

_SIZES, _IMPORTANCE = (16, 32, 8), (3.0, 1.0, 2.0)
_ITERATIONS = 3


class _Share(Cost):
    """The mean share of every decision that is kept: a cost that grows with each of them."""

    name = "share"
    dense = 1.0
    tabulated = True

    def fraction(self, candidates: np.ndarray) -> np.ndarray:
        return np.asarray((candidates / np.array(_SIZES)).mean(axis=1))

    def shares(self, candidates: np.ndarray) -> np.ndarray:
        return np.asarray(candidates / np.array(_SIZES) / len(_SIZES))


class _Formula:
    """Evaluates by a concave formula in which every decision has its own importance."""

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> Evaluation:
        lost = (1 - np.array(candidate) / np.array(_SIZES)) ** 2
        accuracy = 1.0 - float(np.dot(_IMPORTANCE, lost) / sum(_IMPORTANCE))
        share = float(_Share().fraction(np.array([candidate]))[0])
        return Evaluation(candidate, {"accuracy": accuracy}, {"share": share})


def check_agent(make: Callable[[Judge, int, int], Agent], evaluations: int = 96) -> None:
    """Make sure that an agent can be trusted with a search.

    On a small problem with a known formula it must ask for candidates of the space only, for no
    more than it may, and report of each iteration what it asked for; propose the same with the same
    seed; and go on from `save` and `load` as if nothing had happened.

    Args:
        make: Builds the agent from a judge, a seed and the evaluations that it may ask for; mostly
            the agent's class.
        evaluations: Candidates that it may ask for in all.

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
    """
    first, second = _judge(), _judge()
    asked = _ask(make(first, 0, evaluations), evaluations)
    name = getattr(make, "name", repr(make))
    expect(
        sum(len(each) for each in asked) <= evaluations,
        f"{name!r} asks for more candidates than it may: {evaluations}.",
    )
    every = np.array([row for each in asked for row in each], dtype=np.int64)
    space = first.problem.space
    expect(len(every) > 0, f"{name!r} asks for nothing.")
    expect(
        bool(((every >= space.smallest) & (every <= space.sizes)).all()),
        f"{name!r} asks for candidates that are not in the space.",
    )
    expect(
        first.past.candidates.tolist() == every.tolist(),
        f"{name!r} reports other candidates than it had judged; return what it asked the judge.",
    )
    again = make(second, 0, evaluations)
    expect(
        _ask(again, evaluations) == asked,
        f"{name!r} asks for other candidates with the same seed; take all randomness from it.",
    )
    _check_continuation(make, evaluations, asked, name)


def _check_continuation(
    make: Callable[[Judge, int, int], Agent],
    evaluations: int,
    asked: list[list[list[int]]],
    name: str,
) -> None:
    for after in range(1, min(_ITERATIONS, len(asked))):
        judge = _judge()
        agent = make(judge, 0, evaluations)
        left = evaluations
        for _ in range(after):
            left -= len(agent.iterate(left).candidates)
        with tempfile.TemporaryDirectory() as folder:
            agent.save(Path(folder))
            agent.stop()
            restored = make(judge, 0, evaluations)
            restored.load(Path(folder))
        found = restored.iterate(left).candidates.tolist()
        restored.stop()
        expect(
            found == asked[after],
            f"{name!r} goes on with other candidates after save and load; save all of its state.",
        )


def _ask(agent: Agent, evaluations: int) -> list[list[list[int]]]:
    """The candidates of every iteration, until the agent has no more."""
    found: list[list[list[int]]] = []
    left = evaluations
    try:
        while left > 0:
            iteration = agent.iterate(left)
            if iteration.outcome is None:
                break
            found.append(iteration.candidates.tolist())
            left -= len(found[-1])
    finally:
        agent.stop()
    return found


def _judge() -> Judge:
    names = [f"decision{number}" for number in range(len(_SIZES))]
    space = SearchSpace(
        tuple(Decision(name, "channels", size) for name, size in zip(names, _SIZES, strict=True))
    )
    problem = Problem(
        space=space,
        budgets=(Budget("share", 0.5),),
        costs={"share": _Share()},
        reward=make_reward("accuracy"),
        dense=_Formula().evaluate([space.dense])[0],
        features=np.eye(len(_SIZES), dtype=np.float32),
    )
    return Judge(problem, _Formula())
