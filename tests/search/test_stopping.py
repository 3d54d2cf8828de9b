"""Stopping hopeless searches: the rule by hand, and a comparison in which one is hopeless."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from prunetune.search.engine.entry import run_comparison
from prunetune.search.engine.stopping import Rungs, stopped_at
from prunetune.search.spec.model import StoppingSpec
from prunetune.search.spec.reading import read_spec

_BUDGETS = {"flops": 0.5}


def test_rungs_grow_by_the_reduction_and_end_before_the_search_does(tmp_path: Path) -> None:
    assert Rungs(tmp_path, StoppingSpec(first=0.1, reduction=3), 100).rungs == (10, 30, 90)
    assert Rungs(tmp_path, StoppingSpec(first=0.5, reduction=2), 10).rungs == (5,)
    assert Rungs(tmp_path, StoppingSpec(first=0.01), 3).rungs == (1,)


def test_a_rung_is_due_once_and_the_last_of_several(tmp_path: Path) -> None:
    rungs = Rungs(tmp_path, StoppingSpec(first=0.1, reduction=3), 100)
    assert [rungs.due(0, 9), rungs.due(8, 10), rungs.due(10, 16), rungs.due(16, 95)] == [
        None,
        10,
        None,
        90,
    ]


def test_the_best_third_goes_on(tmp_path: Path) -> None:
    rungs = Rungs(tmp_path, StoppingSpec(reduction=3), 100)
    arriving = [0.5, 0.4, 0.3, 0.6, 0.45, 0.55, 0.7]
    decisions = [
        rungs.goes_on(25, _BUDGETS, f"trial{index}", value) for index, value in enumerate(arriving)
    ]
    # Two come too early to be compared. 0.3 is third of three; 0.6 is first of four, where two go
    # on; 0.45 third of five; 0.55 second of six, where two go on; 0.7 first.
    assert decisions == [True, True, False, True, False, True, True]
    assert [stopped_at(tmp_path, f"trial{index}") for index in range(3)] == [None, None, 25]


def test_decisions_stand_and_budgets_are_kept_apart(tmp_path: Path) -> None:
    rungs = Rungs(tmp_path, StoppingSpec(reduction=2), 100)
    assert rungs.goes_on(25, _BUDGETS, "first", 0.9)
    assert not rungs.goes_on(25, _BUDGETS, "second", 0.8)
    # Resumed, the search may arrive with a better candidate; what was decided stays decided.
    again = Rungs(tmp_path, StoppingSpec(reduction=2), 100)
    assert not again.goes_on(25, _BUDGETS, "second", 0.95)
    assert again.goes_on(25, {"flops": 0.3}, "third", 0.1)


@pytest.mark.slow
@pytest.mark.ray
def test_only_the_yardstick_decides_who_is_hopeless(
    local_ray: None, cache_folder: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "rewards.py"
    rewards.write_text(
        textwrap.dedent(
            """
            from prunetune.rewards import Reward

            class Ruinous(Reward):
                \"\"\"Its own values are the highest of all, for the worst networks.\"\"\"

                name, measures = "ruinous", ("accuracy",)

                def __call__(self, evaluation, dense):
                    return 100 * (2 - evaluation.measures["accuracy"])
            """
        )
    )
    spec = read_spec(
        {
            "task": {"model": "digits-net"},
            "budgets": {"flops": 0.3},
            "agent": {"name": "random", "parameters": {"candidates": 8}},
            "evaluations": 32,
            "finalists": 1,
            "finetune": {"epochs": 0},
            "measures": ["accuracy"],
            "output": str(tmp_path / "run"),
            "compare": {
                "rewards": ["accuracy", f"{rewards}:Ruinous"],
                "stopping": {"first": 0.5, "reduction": 2, "images": 300},
                "concurrent": 1,
            },
        }
    )
    summary = run_comparison(spec)
    good, ruinous = summary.best

    assert (good.stopped, good.evaluations) == (False, 32)
    assert (ruinous.stopped, ruinous.evaluations) == (True, 16)
    # It is stopped, not failed: its best candidate so far is tested like the others'.
    assert ruinous.error is None and ruinous.test_after is not None
    assert good.test_after is not None and ruinous.test_after < good.test_after
