"""Live progress on a terminal, and the table of a comparison's searches."""

from __future__ import annotations

import io

from prunetune.cli.console import LiveProgress
from prunetune.rewards import NamedSpec
from prunetune.search.engine.progress import COLUMNS, table_rows
from prunetune.search.spec.trials import TrialSpec
from rich.console import Console


def _trial(reward: str, seed: int) -> TrialSpec:
    return TrialSpec(
        name=f"{reward}{seed}",
        reward=NamedSpec(name=reward),
        budgets={"flops": (0.2, 0.7), "params": 0.5},
        agent=NamedSpec(name="random"),
        seed=seed,
    )


def test_seeds_share_a_row_and_what_is_under_way_comes_first() -> None:
    trials = {
        t.name: t for r in ("loss", "agreement", "accuracy") for t in (_trial(r, 0), _trial(r, 1))
    }
    results = {
        "loss0": {"done": True, "evaluations": 40, "best_reward": -1.0, "best_accuracy": 0.8},
        "loss1": {"done": True, "evaluations": 40, "best_reward": -2.0, "best_accuracy": 0.9},
        "accuracy1": {"evaluations": 20},
    }
    rows = table_rows(trials, results, 40)
    budgets = "flops 0.2-0.7, params 0.5"
    assert rows == [
        ("accuracy", budgets, "random", "0 of 2", "20 of 80", "", ""),
        ("agreement", budgets, "random", "0 of 2", "0 of 80", "", ""),
        ("loss", budgets, "random", "2 of 2", "80 of 80", "-1.5000", "85.00"),
    ]
    assert len(COLUMNS) == len(rows[0])


def test_a_terminal_shows_the_latest_table_and_as_many_rows_as_it_has_room_for() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=9, color_system=None)
    progress = LiveProgress(console)
    progress.table(("a",), [("before any step",)])
    progress.start(10, "180 searches")
    progress.table(("reward", "[best]"), [("first", "1")])
    progress.table(("reward", "[best]"), [(f"row {number}", "[2]") for number in range(9)])
    progress.advance(4)
    progress.note("something happened")
    progress.finish()
    shown = stream.getvalue()
    assert "before any step" not in shown
    # What stays on the screen in the end.
    last = shown[shown.rindex("reward") :]
    assert "[best]" in last and "row 3" in last and "row 4" not in last and "first" not in last
    assert "and 5 more" in last and "4/10" in last and "[2]" in last
    assert "something happened" in shown
