"""Which candidates of a trial reach the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prunetune.search.history import AskedCandidate, pick_finalists

CANDIDATES = st.builds(
    AskedCandidate,
    widths=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    reward=st.floats(-1, 1),
    costs=st.just({"flops": 0.5}),
    feasible=st.booleans(),
    evaluations_before=st.integers(0, 100),
)


@given(st.lists(CANDIDATES, max_size=30), st.integers(1, 5))
def test_finalists_are_the_best_different_feasible_ones(
    history: list[AskedCandidate], count: int
) -> None:
    chosen = pick_finalists(history, count)
    feasible = {candidate.widths for candidate in history if candidate.feasible}
    assert all(candidate.feasible for candidate in chosen)
    assert len({candidate.widths for candidate in chosen}) == len(chosen)
    assert len(chosen) == min(count, len(feasible))
    rewards = [candidate.reward for candidate in chosen]
    assert rewards == sorted(rewards, reverse=True)


def test_of_equal_rewards_the_first_one_asked_for_wins() -> None:
    history = [
        AskedCandidate((2,), 0.5, {"flops": 0.5}, True, 0),
        AskedCandidate((1,), 0.5, {"flops": 0.4}, True, 1),
        AskedCandidate((3,), 0.9, {"flops": 0.6}, False, 2),
        AskedCandidate((2,), 0.5, {"flops": 0.5}, True, 3),
    ]
    assert [c.evaluations_before for c in pick_finalists(history, 3)] == [0, 1]
