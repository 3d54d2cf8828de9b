"""Search spaces: what a candidate is, and which candidates are the same network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from prunetune.models.space import Decision, Inactive, SearchSpace

SPACE = SearchSpace(
    (
        Decision("stem", "channels", 16),
        Decision("block", "channels", 32, smallest=4),
        Decision("block.relu", "activation", 1, smallest=0),
    ),
    (Inactive("block", where="block.relu", equals=0),),
)


def test_a_space_knows_its_dense_candidate_and_its_bounds() -> None:
    assert SPACE.dense == (16, 32, 1)
    assert SPACE.names == ("stem", "block", "block.relu")
    np.testing.assert_array_equal(SPACE.sizes, [16, 32, 1])
    np.testing.assert_array_equal(SPACE.smallest, [1, 4, 0])
    np.testing.assert_array_equal(SPACE.of_kind("channels"), [0, 1])
    assert pickle.loads(pickle.dumps(SPACE)) == SPACE


def test_what_makes_no_difference_gets_the_dense_value() -> None:
    candidates = [[8, 5, 0], [8, 7, 0], [8, 5, 1]]

    np.testing.assert_array_equal(SPACE.canonical(candidates), [[8, 32, 0], [8, 32, 0], [8, 5, 1]])
    np.testing.assert_array_equal(SPACE.canonical(candidates[0]), [8, 32, 0])
    assert candidates[0] == [8, 5, 0]


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ((8, 8), "3 values"),
        ((0, 8, 1), "stem is 0, not in 1..16"),
        ((8, 3, 1), "not in 4..32"),
        ((8, 33, 1), "not in 4..32"),
    ],
)
def test_candidates_out_of_range_are_named(candidate: tuple[int, ...], message: str) -> None:
    SPACE.check((8, 8, 0))
    with pytest.raises(ValueError, match=message):
        SPACE.check(candidate)


def test_a_share_that_is_kept_is_rounded_up_and_concerns_one_kind() -> None:
    kept = SPACE.keeping(0.3, ["channels"])

    np.testing.assert_array_equal(kept.smallest, [5, 10, 0])
    np.testing.assert_array_equal(SPACE.keeping(0.0, ["channels"]).smallest, SPACE.smallest)


def test_spaces_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        SearchSpace((Decision("a", "channels", 4), Decision("a", "channels", 8)))
    with pytest.raises(ValueError, match=r"not in 0\.\.4"):
        Decision("a", "channels", 4, smallest=5)
