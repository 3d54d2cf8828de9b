"""Small structures and an analytic evaluator for the tests of the environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from prunetune.envs.budgets import Budget
from prunetune.envs.judge import Judge
from prunetune.envs.observation import group_features
from prunetune.envs.problem import Outcome, Problem
from prunetune.models.costs.cost import Cost
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import GroupInfo, LayerInfo, Structure
from prunetune.models.space import Decision, SearchSpace
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.rewards.reward import Reward


def chain(sizes: Sequence[int], kernel: int = 3, image: int = 8, classes: int = 10) -> Structure:
    """A plain chain: one convolution with normalisation per group, and a linear classifier."""
    layers = []
    for index, _ in enumerate(sizes):
        inputs = ((index - 1, 1),) if index else ()
        fixed = 0 if index else 3
        conv = LayerInfo(
            f"conv{index}", "conv", inputs, fixed, ((index, 1),), 0, (kernel, kernel), 1,
            (image, image), (image, image), 1, False,
        )  # fmt: skip
        norm = LayerInfo(
            f"norm{index}", "norm", ((index, 1),), 0, ((index, 1),), 0, (1, 1), 1,
            (image, image), (image, image), 1, True,
        )  # fmt: skip
        layers += [conv, norm]
    last = len(sizes) - 1
    layers.append(
        LayerInfo("fc", "linear", ((last, 1),), 0, (), classes, (1, 1), 1, (1, 1), (1, 1), 1, True)
    )
    groups = tuple(GroupInfo(f"conv{index}", size) for index, size in enumerate(sizes))
    return Structure(groups, tuple(layers), (3, image, image))


def channels(structure: Structure) -> SearchSpace:
    """The decisions of a structure: the width of every group."""
    return SearchSpace(
        tuple(Decision(group.name, "channels", group.size) for group in structure.groups)
    )


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    """Random structures: any layer may read any group or none, write any group or none."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    groups = tuple(GroupInfo(f"g{index}", size) for index, size in enumerate(sizes))
    # The first layers write every group once, so that no group is without a cost.
    writers = [((index, 1),) for index in range(len(sizes))]
    for _ in range(draw(st.integers(0, 4))):
        writers.append(draw(_shares(len(sizes))))
    layers = []
    for number, outputs in enumerate(writers):
        inputs = draw(_shares(len(sizes)))
        kernel = draw(st.sampled_from([1, 3, 5]))
        side = draw(st.integers(1, 16))
        layer = LayerInfo(
            name=f"layer{number}",
            kind="conv",
            inputs=inputs,
            fixed_inputs=draw(st.integers(0 if inputs else 1, 4)),
            outputs=outputs,
            fixed_outputs=draw(st.integers(0 if outputs else 1, 4)),
            kernel=(kernel, kernel),
            stride=draw(st.integers(1, 2)),
            input_size=(side, side),
            output_size=(side, side),
            groups=1,
            bias=draw(st.booleans()),
        )
        layers.append(layer)
    return Structure(groups, tuple(layers), (3, 16, 16), draw(st.integers(0, 100)))


def _shares(groups: int) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    one = st.tuples(st.integers(0, groups - 1), st.integers(1, 3))
    return st.lists(one, max_size=2, unique_by=lambda pair: pair[0]).map(tuple)


class Accuracy(Reward):
    """The measure ``accuracy`` itself."""

    name = "plain-accuracy"
    measures = ("accuracy",)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The candidate's accuracy."""
        return evaluation.measures["accuracy"]


class AnalyticEvaluator:
    """A concave accuracy with a known optimum: every group has its own importance."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.calls: list[int] = []

    def evaluate(self, candidates: Sequence[tuple[int, ...]]) -> list[Evaluation]:
        """Evaluate candidates, remembering how many came in one call."""
        self.calls.append(len(candidates))
        return [self.one(widths) for widths in candidates]

    def one(self, widths: tuple[int, ...]) -> Evaluation:
        """Accuracy falls with the squared share of units removed, more so in early groups."""
        kept = np.array(widths) / self.structure.sizes
        weight = 1.0 / (1.0 + np.arange(len(widths)))
        accuracy = 1.0 - float((weight * (1 - kept) ** 2).sum() / weight.sum())
        odd = float(np.mean(np.array(widths) % 2))
        return Evaluation(widths, {"accuracy": accuracy}, {"odd": odd}, 0.0)


class Answers:
    """Evaluations that are given, whatever is asked for."""

    def __init__(self, answers: list[Evaluation]) -> None:
        self.answers = answers

    def evaluate(self, candidates: Sequence[tuple[int, ...]]) -> list[Evaluation]:
        """The answers."""
        return self.answers


def space(structure: Structure, smallest: float = 0.0) -> SearchSpace:
    """One decision per group, at least a share of which is kept."""
    decisions = tuple(Decision(each.name, "channels", each.size) for each in structure.groups)
    return SearchSpace(decisions).keeping(smallest, ["channels"])


def problem(
    structure: Structure,
    budgets: dict[str, float],
    shield: bool = False,
    *,
    costs: Sequence[Cost] = (),
    smallest: float = 0.0,
) -> Problem:
    """A problem on ``structure``, judged by the analytic evaluator's accuracy."""
    return Problem(
        space=space(structure, smallest),
        budgets=tuple(Budget(name, limit) for name, limit in budgets.items()),
        costs={**counted_costs(structure), **{cost.name: cost for cost in costs}},
        reward=Accuracy(),
        dense=AnalyticEvaluator(structure).one(tuple(int(size) for size in structure.sizes)),
        features=group_features(structure),
        shield=shield,
    )


def judge(structure: Structure, budgets: dict[str, float], **options: Any) -> Judge:
    """A judge of such a problem."""
    return Judge(problem(structure, budgets, **options), AnalyticEvaluator(structure))


def judged(asked: Problem, structure: Structure, candidates: Any) -> Outcome:
    """What the analytic evaluator and a fresh judge make of candidates."""
    return Judge(asked, AnalyticEvaluator(structure)).ask(np.asarray(candidates, dtype=np.int64))
