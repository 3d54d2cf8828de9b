"""The conformance suite lets good rewards pass and says what is wrong with each faulty one."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
from prunetune.rewards import Evaluation, Reward
from prunetune.testing import check_reward


class _Good(Reward):
    name = "good"
    measures = ("accuracy",)
    costs = ("flops",)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        gain = evaluation.measures["accuracy"] - dense.measures["accuracy"]
        return gain - 0.1 * evaluation.costs["flops"]


class _Nameless(_Good):
    name = " "


class _ListsMeasures(_Good):
    def __init__(self) -> None:
        self.measures = ["accuracy"]  # type: ignore[assignment]


class _Unknown(_Good):
    measures = ("accuracy", "beauty")


class _Undeclared(_Good):
    costs = ()


class _Raises(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return 1 / evaluation.measures["accuracy"]


class _NotFinite(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return float("inf") if evaluation.measures["accuracy"] == 1 else 0.0


class _NotANumber(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> Any:
        return "high"


class _TellsOne(_Good):
    def signals(self, values: Any, feasible: Any, best: float) -> Any:
        return values.max()


class _Chance(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return random.random()


class _Remembers(_Good):
    def __init__(self) -> None:
        self.best = 0.0

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        self.best = max(self.best, evaluation.measures["accuracy"])
        return evaluation.measures["accuracy"] - self.best


class _Clock(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return -evaluation.seconds


class _Mutates(_Good):
    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        evaluation.measures["accuracy"] = 0.5  # type: ignore[index]
        return 0.5


class _Unpicklable(_Good):
    def __init__(self) -> None:
        self.function = lambda: 0.0


class _Forgets(_Good):
    def __init__(self) -> None:
        self.weight = 2.0

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return evaluation.measures["accuracy"] * getattr(self, "weight", 1.0)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def test_a_good_reward_passes_with_its_trends() -> None:
    check_reward(_Good(), increases_with=["accuracy"], decreases_with=["flops"])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (_Good, "not an object of a subclass"),
        (lambda evaluation, dense: 0.0, "not an object of a subclass"),
        (_Nameless(), "has no name"),
        (_ListsMeasures(), "as a tuple of names"),
        (_Unknown(), "needs 'beauty'"),
        (_Undeclared(), "reads 'flops' without declaring it"),
        (_Raises(), "raises ZeroDivisionError"),
        (_NotFinite(), "not finite"),
        (_NotANumber(), "not a number"),
        (_TellsOne(), "one finite number a candidate"),
        (_Chance(), "two values"),
        (_Remembers(), "two values"),
        (_Clock(), "how long an evaluation took"),
        (_Mutates(), "changes the evaluations"),
        (_Unpicklable(), "cannot be pickled"),
        (_Forgets(), "other values after pickling"),
    ],
)
def test_each_fault_is_found_and_named(reward: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reward(reward)


def test_wrong_trends_are_found() -> None:
    with pytest.raises(AssertionError, match="rises as 'accuracy' grows"):
        check_reward(_Good(), decreases_with=["accuracy"])
    with pytest.raises(AssertionError, match="falls as 'flops' grows"):
        check_reward(_Good(), increases_with=["flops"])
    with pytest.raises(AssertionError, match="neither a measure nor a cost"):
        check_reward(_Good(), increases_with=["beauty"])


def test_measures_of_the_users_own_are_accepted_with_their_range() -> None:
    class _Beauty(_Good):
        measures = ("beauty",)

        def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
            assert 3 <= evaluation.measures["beauty"] <= 4
            return evaluation.measures["beauty"]

    # The class must be found again by pickle.
    globals()["_Beauty"] = _Beauty
    _Beauty.__qualname__ = "_Beauty"

    check_reward(_Beauty(), measures={"beauty": (3.0, 4.0)}, increases_with=["beauty"])


def test_rewards_and_their_suite_need_neither_pytest_nor_ray() -> None:
    code = (
        "import sys, prunetune.testing, prunetune.rewards\n"
        "print([m for m in ('pytest', 'ray') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stdout.strip() == "[]", result.stderr
