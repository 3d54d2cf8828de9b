"""A trial's history: in order, repeatable, and cut back to the iteration restored."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import RunFolderError
from prunetune.search.run.history import Asked, TrialHistory


def asked(number: int, reward: float = 0.5) -> Asked:
    return Asked((number, 2), reward, {"flops": 0.5}, True, number)


candidates = st.builds(
    Asked,
    candidate=st.lists(st.integers(1, 4096), min_size=1, max_size=4).map(tuple),
    reward=st.floats(allow_nan=False),
    costs=st.dictionaries(st.sampled_from(["flops", "params", "latency"]), st.floats(0, 2)),
    feasible=st.booleans(),
    evaluations_before=st.integers(0, 10**12),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(candidates, max_size=3), max_size=12))
def test_it_loads_what_was_written_in_order(batches: list[list[Asked]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = TrialHistory(Path(folder) / "trial")
        # Written in any order: the number of the iteration decides, not the time of writing.
        for iteration in reversed(range(len(batches))):
            history.write(iteration, batches[iteration])
        assert history.load() == [candidate for batch in batches for candidate in batch]


def test_a_repeated_iteration_replaces_the_first(tmp_path: Path) -> None:
    history = TrialHistory(tmp_path)
    history.write(0, [asked(0), asked(1)])
    history.write(1, [asked(2)])
    history.write(1, [asked(3), asked(4)])
    assert history.load() == [asked(0), asked(1), asked(3), asked(4)]


def test_a_restored_trial_forgets_later_iterations(tmp_path: Path) -> None:
    history = TrialHistory(tmp_path)
    for iteration in range(12):
        history.write(iteration, [asked(iteration)])
    history.drop_after(9)
    assert history.iterations() == list(range(10))
    assert history.load() == [asked(i) for i in range(10)]
    history.drop_after(-1)
    assert history.load() == []


def test_a_failed_candidate_has_no_reward(tmp_path: Path) -> None:
    history = TrialHistory(tmp_path)
    history.write(0, [asked(0, reward=math.nan)])
    assert math.isnan(history.load()[0].reward)


def test_a_trial_without_a_history_has_an_empty_one(tmp_path: Path) -> None:
    history = TrialHistory(tmp_path / "never")
    assert history.load() == [] and history.iterations() == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    history = TrialHistory(tmp_path)
    history.write(3, [asked(0)])
    (tmp_path / "000003.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"000003\.parquet"):
        history.load()
