"""A run folder that somebody else wrote is data: its report runs nothing, and names are text."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prunetune._references import only_ours
from prunetune.errors import PluginError, RunFolderError
from prunetune.rewards import make_reward
from prunetune.search.report import load_results, print_results, write_report
from prunetune.search.report.fidelity import reward_fidelities
from prunetune.search.run.folder import RunFolder
from rich.console import Console

from .runs import finished_trial, write_run

_ESCAPE = "\x1b]0;owned\x07\x1b[2J"
# Turns the direction of writing: what follows would be read backwards.
_TURNED = "\u202egnp.exe"

_TRAP = """
from pathlib import Path
from prunetune.rewards.single import AccuracyReward as Mine
Path(__file__).with_name("ran").touch()
"""


def _spec(**values: Any) -> dict[str, Any]:
    return {"task": {"model": "digits-net"}, "budgets": {"flops": 0.5}, "agent": "random", **values}


@pytest.mark.parametrize("place", ["inside", "absolute", "home", "module"])
def test_the_report_of_a_strangers_folder_runs_nothing_of_it(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = finished_trial("trap.py:Mine", 0.5, 0, 0.9) | {"trial": "t", "artifact": None}
    run = write_run(tmp_path / "run", [trial])
    folder = run.path if place == "inside" else tmp_path / "elsewhere"
    folder.mkdir(exist_ok=True)
    (folder / "strangers_trap.py").write_text(_TRAP)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    named = {
        "inside": "strangers_trap.py:Mine",
        "absolute": f"{folder}/strangers_trap.py:Mine",
        "home": "~/strangers_trap.py:Mine",
        "module": "strangers_trap:Mine",
    }[place]
    # Wherever a spec may name something, and where it may not.
    run.write_spec(
        _spec(
            reward=named,
            task={"model": named, "data": named, "weights": str(folder / "strangers_trap.py")},
            agent=named,
            criterion=named,
            measures=[named],
            budgets={named: 0.5},
            compare={
                "rewards": [named, {"name": "weighted-sum", "parameters": {"terms": {named: 1}}}]
            },
        )
    )
    write_report(run.path)
    assert not (folder / "ran").exists()
    assert "strangers_trap" not in sys.modules
    # The trap is one: whoever names it runs it.
    make_reward(named)
    assert (folder / "ran").exists()
    sys.modules.pop("strangers_trap", None)


def test_what_is_not_ours_is_refused_inside_only_ours() -> None:
    with only_ours(), pytest.raises(PluginError, match="not one of ours"):
        make_reward("json:dumps")
    with only_ours():
        assert make_reward("accuracy").name == "accuracy"


def test_an_own_reward_is_judged_by_what_its_searches_recorded(tmp_path: Path) -> None:
    name = "rewards-Mine_flops0.99_random_seed0"
    widths = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3)]
    trials = [
        finished_trial("mine", 0.99, seed, 0.9 + 0.001 * seed, each)
        for seed, each in enumerate(widths)
    ]
    trials[0]["trial"] = name
    run = write_run(tmp_path / "run", trials)
    run.write_spec(_spec(reward="gone/rewards.py:Mine", budgets={"flops": 0.99}))
    results = load_results(run)
    recorded = {asked.candidate: asked.reward for asked in results.histories[name]}
    (mine,) = [each for each in reward_fidelities(results) if each.reward.endswith("Mine")]
    assert mine.compared and mine.candidates == len(widths)
    # Test accuracy rises from one to the next, so that ranks of the reward tell all.
    ranks = sorted(range(9), key=lambda place: recorded[widths[place]])
    distance = sum((rank - place) ** 2 for rank, place in enumerate(ranks))
    assert mine.correlation == pytest.approx(1 - 6 * distance / (9 * 80))


def test_names_are_text_on_terminals_pages_and_in_spreadsheets(tmp_path: Path) -> None:
    bad = f"{_ESCAPE}{_TURNED}[link=http://evil]<script>"
    formula = '=HYPERLINK("http://evil";"accuracy")'
    trials = [finished_trial(formula, 0.5, seed, 0.9) for seed in range(2)]
    for each in trials:
        each |= {"agent": bad, "error": bad, "notes": [bad], "budget": {bad: "$x_{$"}}
    run = write_run(tmp_path / "run", trials)
    summary = json.loads(run.summary_path.read_text()) | {"name": bad, "task": bad}
    run.summary_path.write_text(json.dumps(summary))
    run.write_spec(_spec(name=bad))
    page, results = write_report(run.path)
    text = page.read_text()
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    assert r"\x1b]0;owned\x07" in text and r"\u202egnp" in text
    console = Console(record=True, width=400, force_terminal=True, color_system=None)
    print_results(results, console)
    shown = console.export_text()
    assert "\x1b" not in shown and "\u202e" not in shown and "[link=http://evil]" in shown
    with open(page.parent / "comparison.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["reward"] == f"'{formula}"


def test_a_report_writes_nothing_outside_of_the_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [finished_trial("accuracy", 0.5, 0, 0.9)])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    run.report.symlink_to(mine)
    with pytest.raises(RunFolderError, match="is a link"):
        write_report(run.path)
    run.report.unlink()
    run.report.mkdir()
    for name in ("comparison.csv", "comparison.parquet", "index.html", "costs.png"):
        (run.report / name).symlink_to(mine / "file")
    write_report(run.path)
    assert (mine / "file").read_text() == "mine"
    assert [path.name for path in mine.iterdir()] == ["file"]


def test_the_command_line_shows_names_as_text(tmp_path: Path) -> None:
    from prunetune.cli.app import app
    from typer.testing import CliRunner

    run = RunFolder.create(tmp_path / "run", {"name": "run"})
    (run.path / "summary.json").write_text(json.dumps({"name": _ESCAPE}))
    answer = CliRunner().invoke(app, ["report", f"{run.path}{_ESCAPE}"])
    assert answer.exit_code == 2
    assert "\x1b" not in answer.output and r"\x1b]0;owned" in answer.output
    assert yaml.safe_load((run.path / "spec.yaml").read_text()) == {"name": "run"}
