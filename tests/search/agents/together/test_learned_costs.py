"""Learned costs against the textbook's Gaussian process, and candidates moved by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prunetune.envs.judge import Judge
from prunetune.envs.past import Past
from prunetune.models.costs.cost import MeasuredCost
from prunetune.search.agents.together.believed_costs import BelievedCosts
from prunetune.search.agents.together.candidate_map import CandidateMap
from prunetune.search.agents.together.cost_surrogate import LearnedCost

from ....envs.structures import chain, judge, problem

SIZES = np.array([16, 24, 64])


def _drawn(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1, SIZES + 1, (count, len(SIZES)))


def _odd(widths: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.mean(widths % 2, axis=1))


def _padded(widths: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.ceil(widths / 8).sum(axis=1) / np.ceil(SIZES / 8).sum())


def _covariance(left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    total = 0.0
    for a, b, size in zip(left, right, SIZES, strict=True):
        total += 4 * (a / size) * (b / size)
        total += sum(-(-a // block) == -(-b // block) for block in (1, 2, 4, 8, 16, 32)) / 6
        total += sum(a % divisor == b % divisor for divisor in (2, 4, 8)) / 3
    return float(total)


def _posterior_mean(
    seen: NDArray[np.int64], costs: NDArray[np.float64], new: NDArray[np.int64], noise: float
) -> NDArray[np.float64]:
    known = np.array([[_covariance(a, b) for b in seen] for a in seen])
    between = np.array([[_covariance(a, b) for b in seen] for a in new])
    level = noise * np.trace(known) / len(seen)
    weights = np.linalg.solve(known + level * np.eye(len(seen)), costs - costs.mean())
    return np.asarray(costs.mean() + between @ weights)


def _past(seen: NDArray[np.int64], **costs: NDArray[np.float64]) -> Past:
    """A past in which these candidates cost so much; what is not a number has failed."""
    past = Past()
    whole = np.all([np.isfinite(each) for each in costs.values()], axis=0)
    past.append(
        [tuple(row) for row in seen.tolist()],
        np.where(whole, 0.0, np.nan).tolist(),
        [{name: float(each[row]) for name, each in costs.items()} for row in range(len(seen))],
        [False] * len(seen),
    )
    return past


def _with_past(budgets: dict[str, float], seen: NDArray[np.int64]) -> Judge:
    costs = (MeasuredCost("odd"), MeasuredCost("padded"))
    asked = judge(chain(SIZES.tolist()), budgets, costs=costs)
    asked.past = _past(seen, odd=_odd(seen), padded=_padded(seen))
    return asked


def _believed(asked: Judge) -> BelievedCosts:
    return BelievedCosts(asked.problem, asked.past)


def test_predictions_are_the_posterior_mean_of_the_level_of_noise_that_errs_least() -> None:
    seen, new = _drawn(30, 0), _drawn(10, 1)
    costs = _padded(seen) + np.random.default_rng(2).normal(0, 0.05, 30)
    means = [_posterior_mean(seen, costs, new, noise) for noise in (1e-6, 1e-4, 1e-2, 1e-1)]
    predicted = LearnedCost(seen, costs, SIZES).predict(new)
    assert min(np.abs(predicted - mean).max() for mean in means) < 1e-6


def test_its_error_is_that_of_leaving_every_candidate_out_once() -> None:
    seen = _drawn(25, 3)
    costs = _odd(seen)
    model = LearnedCost(seen, costs, SIZES)
    errors = []
    known = np.array([[_covariance(a, b) for b in seen] for a in seen])
    for noise in (1e-6, 1e-4, 1e-2, 1e-1):
        level = noise * np.trace(known) / len(seen)
        left_out = []
        for out in range(len(seen)):
            rest = np.delete(np.arange(len(seen)), out)
            inner = known[np.ix_(rest, rest)] + level * np.eye(len(rest))
            # The mean of all costs is taken as given, as it is in the model.
            centred = costs - costs.mean()
            left_out.append(known[out, rest] @ np.linalg.solve(inner, centred[rest]) - centred[out])
        errors.append(float(np.sqrt(np.mean(np.square(left_out)))))
    assert model.error == pytest.approx(min(errors), rel=1e-6)
    assert model.explained == pytest.approx(1 - min(errors) ** 2 / costs.var(), rel=1e-6)


@pytest.mark.parametrize("cost", [_odd, _padded])
def test_what_turns_on_single_channels_or_blocks_is_learned_from_few(cost: object) -> None:
    assert callable(cost)
    seen, new = _drawn(120, 4), _drawn(200, 5)
    model = LearnedCost.of_past(_past(seen, own=cost(seen)), "own", SIZES)
    assert model is not None
    error = np.sqrt(np.mean((model.predict(new) - cost(new)) ** 2))
    assert error < 0.1 * cost(new).std()


def test_too_little_or_too_random_a_past_is_not_followed() -> None:
    seen = _drawn(60, 6)
    chance = np.random.default_rng(7).normal(size=60)
    costs = _odd(seen)
    assert LearnedCost.of_past(Past(), "own", SIZES) is None
    assert LearnedCost.of_past(_past(seen, own=chance), "own", SIZES) is None
    assert LearnedCost.of_past(_past(seen, own=costs), "other", SIZES) is None
    assert LearnedCost.of_past(_past(seen[:7], own=costs[:7]), "own", SIZES) is None


def test_candidates_whose_evaluation_failed_teach_nothing() -> None:
    seen = _drawn(60, 8)
    costs = _padded(seen)
    broken = np.where(np.arange(60) % 3 == 0, np.nan, costs)
    whole = np.isfinite(broken)
    model = LearnedCost.of_past(_past(seen, own=broken), "own", SIZES)
    assert model is not None
    expected = LearnedCost(seen[whole], costs[whole], SIZES).predict(seen)
    np.testing.assert_allclose(model.predict(seen), expected)


def test_a_cost_that_never_changes_is_predicted_as_it_is() -> None:
    model = LearnedCost(_drawn(20, 9), np.full(20, 0.7), SIZES)
    np.testing.assert_allclose(model.predict(_drawn(5, 10)), 0.7)


def test_whether_a_cost_grows_with_the_widths_is_learned_too() -> None:
    seen = _drawn(120, 15)
    assert LearnedCost(seen, _padded(seen), SIZES).grows
    assert not LearnedCost(seen, _odd(seen), SIZES).grows
    assert not LearnedCost(seen, -_padded(seen), SIZES).grows


@pytest.mark.parametrize("limit", [0.35, 0.5, 0.8])
def test_candidates_are_scaled_to_a_learned_cost_that_grows(limit: float) -> None:
    asked = _with_past({"padded": limit}, _drawn(150, 16))
    mapping, limits = CandidateMap(asked.problem), np.full((30, 1), limit)
    actions = np.random.default_rng(17).uniform(-0.6, 0.6, (30, mapping.size))
    costs = _padded(mapping.candidates(actions, limits, _believed(asked)))
    block = 1 / np.ceil(SIZES / 8).sum()
    # One factor may take several groups over the edges of their blocks at once.
    assert (costs <= limit).all() and (costs > limit - 3 * block).all()
    assert (_padded(mapping.candidates(actions, limits)) > limit).any()


def test_what_no_width_keeps_does_not_leave_one_unit_everywhere() -> None:
    asked = _with_past({"flops": 0.5, "padded": 0.01}, _drawn(150, 18))
    loose = _with_past({"flops": 0.5, "padded": 1.0}, _drawn(150, 18))
    mapping, actions = CandidateMap(asked.problem), np.zeros((1, 4))
    narrowest = mapping.candidates(actions, np.array([[0.5, 0.01]]), _believed(asked))
    assert (_padded(narrowest) <= 3 / np.ceil(SIZES / 8).sum()).all()
    expected = CandidateMap(loose.problem).candidates(actions, np.array([[0.5, 1.0]]))
    widths = CandidateMap(loose.problem).candidates(
        actions, np.array([[0.5, 1.0]]), _believed(loose)
    )
    np.testing.assert_array_equal(widths, expected)


def test_unscaled_candidates_are_not_scaled_to_learned_costs_either() -> None:
    asked = _with_past({"padded": 0.5}, _drawn(150, 19))
    mapping, limits = CandidateMap(asked.problem, scale=False), np.full((5, 1), 0.5)
    actions = np.random.default_rng(20).uniform(-1, 1, (5, mapping.size))
    widths = mapping.candidates(actions, limits, _believed(asked))
    np.testing.assert_array_equal(widths, mapping.candidates(actions, limits))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31))
def test_moved_candidates_keep_their_limits_and_hardly_move(seed: int) -> None:
    asked = _with_past({"flops": 0.5, "odd": 0.1}, _drawn(150, 11))
    flops = asked.problem.budgeted[0]
    drawn = _drawn(40, seed)
    widths = drawn[flops.fraction(drawn) <= 0.5][:8]
    limits = np.repeat([[0.5, 0.1]], len(widths), axis=0)
    moved = _believed(asked).moved_to_limits(widths, limits)
    assert (_odd(moved) == 0).all()
    assert (flops.fraction(moved) <= 0.5).all()
    assert (np.abs(moved - widths) <= 3).all()
    assert (moved >= asked.problem.space.smallest).all() and (moved <= SIZES).all()
    # What keeps all limits stays as it is.
    np.testing.assert_array_equal(_believed(asked).moved_to_limits(moved, limits), moved)


def _move_by_move(
    believed: BelievedCosts, row: NDArray[np.int64], limit: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Of all moves of one group the one that gains most, until nothing is exceeded."""
    while True:
        left = believed.violations(row[None], limit)[0]
        moves = [
            (group, width)
            for group, size in enumerate(SIZES)
            for width in range(max(1, row[group] - 32), min(size, row[group] + 32) + 1)
            if width != row[group]
        ]
        moved = np.repeat(row[None], len(moves), axis=0)
        for each, (group, width) in zip(moved, moves, strict=True):
            each[group] = width
        share = np.abs(moved - row).sum(axis=1) / SIZES[[group for group, _ in moves]]
        gains = (left - believed.violations(moved, limit)) / share
        if left <= 0 or gains.max() <= 0:
            return row
        row = moved[gains.argmax()]


def test_moving_makes_the_best_of_all_moves() -> None:
    asked = _with_past({"flops": 0.5, "odd": 0.1, "padded": 0.5}, _drawn(150, 21))
    believed, widths = _believed(asked), _drawn(20, 22)
    limits = np.repeat([[0.5, 0.1, 0.5]], len(widths), axis=0)
    expected = [
        _move_by_move(believed, row, limit) for row, limit in zip(widths, limits, strict=True)
    ]
    np.testing.assert_array_equal(believed.moved_to_limits(widths, limits), expected)


def test_without_a_past_nothing_moves() -> None:
    asked = problem(chain(SIZES.tolist()), {"odd": 0.1}, costs=(MeasuredCost("odd"),))
    widths, limits = _drawn(5, 12), np.full((5, 1), 0.1)
    believed = BelievedCosts(asked, Past())
    np.testing.assert_array_equal(believed.moved_to_limits(widths, limits), widths)


def test_nothing_is_learned_where_nobody_wants_it() -> None:
    asked = _with_past({"flops": 0.5, "odd": 0.1}, _drawn(150, 13))
    assert _believed(asked).learned
    assert not BelievedCosts(asked.problem, asked.past, learn=False).learned


def test_violations_are_shares_of_the_limits_and_learned_costs_count_with_their_errors() -> None:
    seen = _drawn(150, 23)
    noisy = _odd(seen) + np.random.default_rng(24).normal(0, 0.05, len(seen))
    budgets = {"flops": 0.5, "odd": 0.2}
    asked = judge(chain(SIZES.tolist()), budgets, costs=(MeasuredCost("odd"),))
    asked.past = _past(seen, odd=noisy)
    model = LearnedCost(seen, noisy, SIZES)
    assert model.error > 0.01
    new = _drawn(20, 25)
    limits = np.repeat([[0.5, 0.2]], 20, axis=0)
    flops = asked.problem.budgeted[0].fraction(new)
    # 19 of 20 normal errors are smaller than 1.6 standard deviations.
    odd = model.predict(new) + 1.6 * model.error
    expected = np.maximum(0, flops / 0.5 - 1) + np.maximum(0, odd / 0.2 - 1)
    np.testing.assert_allclose(_believed(asked).violations(new, limits), expected, rtol=1e-9)
