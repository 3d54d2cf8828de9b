"""Rewards by hand, how specs name them, and how errors of users' own rewards are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.errors import EvaluationError, PluginError, SpecError, UnknownNameError
from prunetune.rewards import (
    DEFAULT_MEASURES,
    MEASURES,
    REWARDS,
    Evaluation,
    NamedSpec,
    Reward,
    make_measures,
    make_reward,
    score,
)
from prunetune.testing import MEASURE_RANGES, check_reward
from pydantic import BaseModel, ValidationError

CANDIDATE = Evaluation(
    (8, 4),
    {
        "accuracy": 0.9,
        "loss": 0.4,
        "agreement": 0.2,
        "spatial-entropy": 0.3,
        "spatial-entropy-256": 5.0,
        "neuron-entropy": 0.6,
        "feature-distance": 0.1,
    },
    {"flops": 0.5, "params": 0.4},
)
DENSE = Evaluation(
    (16, 16),
    {**CANDIDATE.measures, "accuracy": 0.95, "spatial-entropy": 0.35, "neuron-entropy": 0.5},
    {"flops": 1.0, "params": 1.0},
)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("accuracy", {}, 0.9),
        ("loss", {}, -0.4),
        ("agreement", {}, -0.2),
        ("spatial-entropy", {}, -0.3),
        ("spatial-entropy", {"goal": "maximise"}, 0.3),
        ("spatial-entropy", {"goal": "preserve"}, -0.05),
        ("spatial-entropy", {"column": "loss"}, -0.4),
        ("spatial-entropy-256", {}, -5.0),
        ("neuron-entropy", {}, -0.6),
        ("neuron-entropy", {"goal": "preserve"}, -0.1),
        ("feature-distance", {}, -0.1),
        ("weighted-sum", {"terms": {"accuracy": 2, "spatial-entropy": 0.5}}, 1.65),
        ("amc-error-log-flops", {"dense_flops": 1000.0}, -0.1 * math.log(500)),
        ("self-competition", {}, 0.9),
        ("self-competition", {"of": "agreement"}, -0.2),
    ],
)
def test_reward_by_hand_and_through_the_conformance_suite(
    name: str, parameters: dict[str, Any], expected: float
) -> None:
    reward = make_reward(NamedSpec(name=name, parameters=parameters))

    assert score(reward, CANDIDATE, DENSE) == pytest.approx(expected)
    check_reward(reward)


@pytest.mark.parametrize(
    ("name", "parameters", "better", "worse"),
    [
        ("accuracy", {}, ["accuracy"], []),
        ("loss", {}, [], ["loss"]),
        ("agreement", {}, [], ["agreement"]),
        ("spatial-entropy", {}, [], ["spatial-entropy"]),
        ("feature-distance", {}, [], ["feature-distance"]),
        ("amc-error-log-flops", {"dense_flops": 1e8}, ["accuracy"], ["flops"]),
    ],
)
def test_reward_moves_the_right_way(
    name: str, parameters: dict[str, Any], better: list[str], worse: list[str]
) -> None:
    reward = make_reward(NamedSpec(name=name, parameters=parameters))

    check_reward(reward, increases_with=better, decreases_with=worse)


def test_every_measure_is_recorded_by_default_and_known_to_the_conformance_suite() -> None:
    columns = [column for measure in make_measures() for column in measure.columns]

    assert [spec.name for spec in DEFAULT_MEASURES] == list(MEASURES)
    assert columns == list(MEASURE_RANGES)


def test_names_in_registries_are_those_of_the_classes() -> None:
    assert all(name == cls.name for name, cls in {**MEASURES, **REWARDS}.items())


def test_a_plain_name_is_a_spec() -> None:
    class Spec(BaseModel):
        reward: NamedSpec
        measures: tuple[NamedSpec, ...]

    spec = Spec.model_validate(
        {"reward": "loss", "measures": ["loss", {"name": "accuracy", "parameters": {}}]}
    )

    assert spec.reward == NamedSpec(name="loss")
    assert spec.measures == (NamedSpec(name="loss"), NamedSpec(name="accuracy"))
    assert Spec.model_validate(spec.model_dump()) == spec
    with pytest.raises(ValidationError):
        NamedSpec.model_validate({"name": "loss", "parametres": {}})


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        ("acuracy", {}, UnknownNameError, "did you mean 'accuracy'"),
        ("accuracy", {"goal": "minimise"}, SpecError, "no parameter 'goal'; it takes none"),
        ("spatial-entropy", {"gaol": "x"}, SpecError, "did you mean 'goal'"),
        ("spatial-entropy", {"goal": "less"}, SpecError, "minimise"),
        ("amc-error-log-flops", {}, SpecError, "needs the parameter 'dense_flops'"),
        ("amc-error-log-flops", {"dense_flops": 0}, SpecError, "above 1"),
        ("weighted-sum", {"terms": {}}, SpecError, "needs terms"),
        ("weighted-sum", {"terms": {"los": 1}}, UnknownNameError, "did you mean 'loss'"),
        (
            "weighted-sum",
            {"terms": {"loss": "much"}},
            SpecError,
            "loss: 'much'.* valid number",
        ),
        ("weighted-sum", {"terms": {"loss": True}}, SpecError, "loss: True.* valid number"),
        ("self-competition", {"of": "acuracy"}, UnknownNameError, "did you mean 'accuracy'"),
        ("no_such_module:Reward", {}, PluginError, "cannot be imported"),
        ("math:pi", {}, PluginError, "subclass of prunetune.rewards.Reward"),
    ],
)
def test_a_wrong_spec_is_one_clear_sentence(
    name: str, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make_reward(NamedSpec(name=name, parameters=parameters))

    assert "\n" not in str(caught.value)


def test_measure_specs_are_checked_too() -> None:
    (coarse,) = make_measures(
        [NamedSpec(name="spatial-entropy", parameters={"bins": 8, "column": "coarse"})]
    )
    assert coarse.columns == ("coarse",)
    with pytest.raises(SpecError, match="both write the column 'loss'"):
        make_measures(["loss", "loss"])
    with pytest.raises(SpecError, match="did you mean 'bins'"):
        make_measures([NamedSpec(name="spatial-entropy", parameters={"bin": 8})])
    with pytest.raises(SpecError, match="bins"):
        make_measures([NamedSpec(name="spatial-entropy", parameters={"bins": "many"})])


def test_users_own_reward_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from prunetune.rewards import Reward\n"
        "class Mine(Reward):\n"
        "    name = 'mine'\n"
        "    measures = ('accuracy', 'loss')\n"
        "    def __init__(self, weight=1.0):\n"
        "        self.weight = weight\n"
        "    def __call__(self, evaluation, dense):\n"
        "        loss = evaluation.measures['loss']\n"
        "        return evaluation.measures['accuracy'] - self.weight * loss\n"
        "ready = Mine(3.0)\n"
    )

    reward = make_reward(NamedSpec(name=f"{file}:Mine", parameters={"weight": 2.0}))

    assert score(reward, CANDIDATE, DENSE) == pytest.approx(0.1)
    check_reward(reward, increases_with=["accuracy"], decreases_with=["loss"])
    assert score(make_reward(f"{file}:ready"), CANDIDATE, DENSE) == pytest.approx(-0.3)
    with pytest.raises(SpecError, match="takes no parameters"):
        make_reward(NamedSpec(name=f"{file}:ready", parameters={"weight": 2.0}))


class _Returns(Reward):
    name = "returns"
    measures = ("accuracy",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "finite number, but returned nan"),
        (-math.inf, "finite number, but returned -inf"),
        (None, "must return a number, but returned None"),
        (True, "must return a number, but returned True"),
        (ZeroDivisionError("division by zero"), "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_reward_that_misbehaves_is_named(value: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        score(_Returns(value), CANDIDATE, DENSE)

    assert "'returns'" in str(caught.value)


def test_score_refuses_what_was_not_recorded_and_what_failed() -> None:
    reward = make_reward("accuracy")
    with pytest.raises(EvaluationError, match=r"needs the measure 'accuracy'.*'acuracy'"):
        score(reward, Evaluation((1,), {"acuracy": 0.5}), DENSE)
    with pytest.raises(EvaluationError, match="no measure was recorded"):
        score(reward, Evaluation((1,)), DENSE)
    with pytest.raises(EvaluationError, match="needs the cost 'flops'"):
        amc = make_reward(NamedSpec(name="amc-error-log-flops", parameters={"dense_flops": 9}))
        score(amc, Evaluation((1,), {"accuracy": 0.5}, {"params": 0.5}), DENSE)
    with pytest.raises(EvaluationError, match="out of memory"):
        score(reward, Evaluation((1,), {"accuracy": 0.5}, error="out of memory"), DENSE)


def test_self_competition_rewards_what_beats_ones_own_best_within_the_budgets() -> None:
    reward = make_reward("self-competition")
    values = np.array([0.5, 0.7, 0.9, 0.7])
    feasible = np.array([True, True, False, True])

    assert reward.signals(values, feasible, 0.6).tolist() == [-1, 1, -1, 1]
    # To equal oneself is not to win.
    assert reward.signals(values, feasible, 0.7).tolist() == [-1, -1, -1, -1]
    # Before there is a best one: above the median of the feasible, which is 0.7.
    assert reward.signals(values - 0.1 * (values == 0.5), feasible, -math.inf).tolist() == [-1] * 4
    wider = np.array([0.2, 0.4, 0.6, 0.8])
    everyone = np.ones(4, dtype=bool)
    assert reward.signals(wider, everyone, -math.inf).tolist() == [-1, -1, 1, 1]
    assert reward.signals(wider, ~everyone, -math.inf).tolist() == [-1] * 4


def test_other_rewards_tell_agents_their_values() -> None:
    values = np.array([0.1, 0.2])

    assert make_reward("accuracy").signals(values, np.array([True, False]), 0.5) is values
