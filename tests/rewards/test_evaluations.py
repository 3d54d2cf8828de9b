"""Evaluations in this process: the evaluator's own, remembered, and errors kept as evaluations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prunetune.models import PruningTask
from prunetune.models.space import Candidate
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.rewards.evaluation.evaluations import Evaluations, InProcessEvaluations
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec


class _Counting:
    """An evaluator that knows how often it was asked, and fails for narrow candidates."""

    def __init__(self) -> None:
        self.asked: list[Candidate] = []

    @property
    def dense(self) -> Evaluation:
        return Evaluation((8, 8), {"accuracy": 1.0})

    def evaluate(self, candidate: Candidate) -> Evaluation:
        self.asked.append(candidate)
        if candidate[0] < 2:
            raise ValueError("too narrow\nand more that nobody reads")
        return Evaluation(candidate, {"accuracy": candidate[0] / 8})


def test_each_candidate_is_evaluated_once_and_answered_in_order() -> None:
    evaluator = _Counting()
    evaluations: Evaluations = InProcessEvaluations(evaluator)
    answers = evaluations.evaluate([(4, 8), (2, 8), (4, 8)])
    assert [each.candidate for each in answers] == [(4, 8), (2, 8), (4, 8)]
    assert evaluations.evaluate([(2, 8)]) == [answers[1]]
    assert evaluator.asked == [(4, 8), (2, 8)]
    assert evaluations.evaluate([]) == []


def test_what_is_raised_becomes_the_error_of_an_evaluation_and_is_remembered() -> None:
    evaluator = _Counting()
    evaluations = InProcessEvaluations(evaluator)
    failed, fine = evaluations.evaluate([(1, 8), (8, 8)])
    assert failed.error == "ValueError: too narrow" and failed.measures == {}
    assert fine.error is None and fine.measures == {"accuracy": 1.0}
    assert evaluations.evaluate([(1, 8)]) == [failed] and len(evaluator.asked) == 2


def test_an_interrupt_is_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(candidate: Candidate) -> Evaluation:
        raise KeyboardInterrupt

    evaluator = _Counting()
    monkeypatch.setattr(evaluator, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        InProcessEvaluations(evaluator).evaluate([(8, 8)])


def test_they_equal_what_the_evaluator_says(digits_task: PruningTask) -> None:
    spec = EvaluatorSpec(precision="fp32", measures=("accuracy", "loss"))  # type: ignore[arg-type]
    evaluator = build_evaluator(digits_task, spec, 0)
    evaluations = InProcessEvaluations(evaluator)
    assert evaluations.dense == evaluator.dense
    candidates = [tuple(max(1, size // part) for size in evaluator.groups.sizes) for part in (2, 3)]
    for found, candidate in zip(evaluations.evaluate(candidates), candidates, strict=True):
        assert replace(found, seconds=0.0) == replace(evaluator.evaluate(candidate), seconds=0.0)
