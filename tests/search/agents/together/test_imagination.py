"""Imagined candidates: the model of rewards, which candidates are evaluated, what agents see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prunetune.envs.judge import Judge
from prunetune.envs.past import Past
from prunetune.models.costs.cost import MeasuredCost
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.agents.together.believed_costs import BelievedCosts
from prunetune.search.agents.together.imagination import Imagination
from prunetune.search.agents.together.reward_surrogate import LearnedReward, RewardKernel
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ....envs.structures import AnalyticEvaluator, Answers, chain, judge

SIZES = np.array([16, 32, 64])


def _drawn(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1, SIZES + 1, (count, len(SIZES)))


def _rewards(widths: NDArray[np.int64]) -> NDArray[np.float64]:
    evaluator = AnalyticEvaluator(chain(SIZES.tolist()))
    return np.array([evaluator.one(tuple(row)).measures["accuracy"] for row in widths])


def _odd(widths: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray((widths % 2).mean(axis=1))


def _with_past(budgets: dict[str, float], seen: NDArray[np.int64]) -> Judge:
    asked = judge(chain(SIZES.tolist()), budgets, costs=(MeasuredCost("odd"),))
    _remember(asked.past, seen)
    return asked


def _remember(past: Past, seen: NDArray[np.int64]) -> None:
    past.append(
        [tuple(row) for row in seen.tolist()],
        _rewards(seen).tolist(),
        [{"odd": float(each)} for each in _odd(seen)],
        [False] * len(seen),
    )


def _believed(asked: Judge) -> BelievedCosts:
    return BelievedCosts(asked.problem, asked.past)


def test_predictions_are_those_of_the_textbook() -> None:
    seen, new = _drawn(12, 0), _drawn(5, 1)
    rewards, lengths, amplitude, noise = _rewards(seen), np.array([0.7, 0.4, 1.1]), 2.0, 0.01
    kernel = ConstantKernel(amplitude) * Matern(lengths, nu=1.5) + WhiteKernel(noise)
    model = LearnedReward(seen, rewards, SIZES, kernel)

    lags = rewards.max() - rewards
    offset = np.median(lags) / 2
    values = -np.log(lags + offset)

    def covariance(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        places = [np.log2(each + 1) / np.log2(SIZES + 1) / lengths for each in (left, right)]
        distance = np.sqrt(3) * cdist(*places)
        return np.asarray(amplitude * (1 + distance) * np.exp(-distance))

    inverse = np.linalg.inv(covariance(seen, seen) + noise * np.eye(12))
    across = covariance(new, seen)
    mean = values.mean() + across @ inverse @ (values - values.mean())
    left = amplitude + noise - np.einsum("ij,jk,ik->i", across, inverse, across)
    std = values.std() * np.sqrt(left)
    expected = rewards.max() + offset - np.exp(-mean)
    np.testing.assert_allclose(model.predict(new), expected, rtol=1e-6)
    bounds = rewards.max() + offset - np.exp(-(mean + std))
    np.testing.assert_allclose(model.upper_bounds(new), bounds, rtol=1e-6)


def test_few_candidates_tell_which_of_many_are_good() -> None:
    seen, new = _drawn(60, 2), _drawn(200, 3)
    kernel = RewardKernel().fit(seen, _rewards(seen), SIZES)
    predicted = LearnedReward(seen, _rewards(seen), SIZES, kernel).predict(new)
    assert spearmanr(predicted, _rewards(new)).statistic > 0.97


@pytest.mark.parametrize("rewards", [[0.5], [0.5] * 9, [-1e6, 0.5, 0.5, 0.5]])
def test_rewards_that_tell_little_are_survived(rewards: list[float]) -> None:
    seen, known = _drawn(len(rewards), 4), np.array(rewards)
    model = LearnedReward(seen, known, SIZES, RewardKernel().fit(seen, known, SIZES))
    assert np.isfinite(model.predict(_drawn(20, 5))).all()
    assert np.isfinite(model.upper_bounds(_drawn(20, 5))).all()


def test_the_kernel_depends_on_how_many_candidates_there_are_and_not_on_when_it_was_asked() -> None:
    seen = _drawn(40, 6)
    rewards = _rewards(seen)
    asked_often = RewardKernel()
    for count in (3, 8, 20, 33):
        asked_often.fit(seen[:count], rewards[:count], SIZES)
    kernel = asked_often.fit(seen, rewards, SIZES)
    assert kernel == RewardKernel().fit(seen, rewards, SIZES)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**31))
def test_every_limit_gets_its_share_of_what_is_evaluated(
    count: int, contexts: int, seed: int
) -> None:
    asked = _with_past({"flops": 0.5}, _drawn(30, 7))
    widths, where = _drawn(120, seed), np.arange(120) % contexts
    limits = np.linspace(0.3, 0.6, contexts)[where][:, None]
    chosen = Imagination(asked).choose(_believed(asked), widths, limits, where, count)
    assert len(chosen) == len(set(chosen.tolist())) == count
    shares = np.bincount(where[chosen], minlength=contexts)
    assert shares.max() - shares.min() <= 1


def test_what_is_new_feasible_and_promising_is_evaluated() -> None:
    seen = _drawn(80, 8)
    asked = _with_past({"flops": 0.5}, seen)
    new = _drawn(200, 9)
    widths = np.concatenate([seen[:40], new, new[:40]])
    limits, where = np.full((len(widths), 1), 0.5), np.zeros(len(widths), dtype=np.int64)
    chosen = widths[Imagination(asked).choose(_believed(asked), widths, limits, where, 10)]
    flops = asked.problem.budgeted[0]
    assert (flops.fraction(chosen) <= 0.5).all()
    assert len({tuple(row) for row in chosen.tolist()}) == 10
    assert not {tuple(row) for row in chosen.tolist()} & {tuple(row) for row in seen.tolist()}
    feasible = np.unique(new[flops.fraction(new) <= 0.5], axis=0)
    best = np.sort(_rewards(feasible))
    assert np.median(_rewards(chosen)) > np.quantile(best, 0.85)


def test_without_a_past_the_first_ones_that_keep_the_limits_are_evaluated() -> None:
    asked = judge(chain(SIZES.tolist()), {"flops": 0.5})
    widths = np.unique(_drawn(60, 10), axis=0)
    limits, where = np.full((len(widths), 1), 0.5), np.zeros(len(widths), dtype=np.int64)
    chosen = Imagination(asked).choose(_believed(asked), widths, limits, where, 5)
    kept = np.flatnonzero(asked.problem.budgeted[0].fraction(widths) <= 0.5)
    np.testing.assert_array_equal(chosen, kept[:5])


def test_what_was_evaluated_stays_and_the_rest_is_predicted() -> None:
    asked = _with_past({"flops": 0.5, "odd": 0.5}, _drawn(100, 11))
    widths, chosen = _drawn(60, 12), np.arange(0, 60, 6)
    limits = np.full((60, 2), 0.5)
    best = asked.past.best
    outcome = asked.ask(widths[chosen], limits[chosen])
    judged = Imagination(asked).complete(widths, limits, chosen, outcome, best)
    np.testing.assert_array_equal(judged.signals[chosen], outcome.signals)
    np.testing.assert_array_equal(judged.costs[chosen], outcome.costs)
    np.testing.assert_array_equal(judged.costs[:, 0], asked.problem.budgeted[0].fraction(widths))
    np.testing.assert_allclose(judged.costs[:, 1], _odd(widths), atol=0.1)
    assert spearmanr(judged.signals, _rewards(widths)).statistic > 0.97


def test_failed_evaluations_teach_nothing() -> None:
    asked = _with_past({"flops": 1.0}, _drawn(60, 13))
    widths, limits = _drawn(40, 14), np.ones((40, 1))
    chosen = np.arange(4)
    good = AnalyticEvaluator(chain(SIZES.tolist()))
    answers = [Evaluation(tuple(widths[0]), {}, error="out of memory")]
    answers += [good.one(tuple(row)) for row in widths[1:4].tolist()]
    failing = Judge(asked.problem, Answers(answers))
    failing.past = asked.past
    outcome = failing.ask(widths[chosen], limits[chosen])
    assert outcome.feasible.tolist()[0] is False
    judged = Imagination(failing).complete(widths, limits, chosen, outcome, -np.inf)
    assert spearmanr(judged.signals[4:], _rewards(widths[4:])).statistic > 0.97


def test_where_everything_fails_nothing_is_promised() -> None:
    asked = judge(chain(SIZES.tolist()), {"flops": 1.0, "odd": 1.0}, costs=(MeasuredCost("odd"),))
    widths, limits, chosen = _drawn(6, 15), np.ones((6, 2)), np.arange(2)
    broken = [Evaluation(tuple(row), {}, error="out of memory") for row in widths[:2].tolist()]
    failing = Judge(asked.problem, Answers(broken))
    outcome = failing.ask(widths[chosen], limits[chosen])
    judged = Imagination(failing).complete(widths, limits, chosen, outcome, -np.inf)
    assert (judged.signals == 0).all() and np.isfinite(judged.costs).all()
