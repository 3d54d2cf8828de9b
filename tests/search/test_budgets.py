"""Budgets of every kind in whole searches on the embedded digits, and those that are refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.cli.app import main
from prunetune.errors import BudgetError, EvaluationError, PruneTuneError
from prunetune.models.artifact import load_artifact, verify_artifact
from prunetune.search.engine.entry import run_comparison, run_search
from prunetune.search.engine.preparing import prepare
from prunetune.search.report import write_report
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.history import TrialHistory
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import Summary
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.reading import read_spec

from .tensorboard_events import scalars

pytestmark = pytest.mark.ray

_COSTS = """
import math

def odd(network, image):
    channels = [each.out_channels for each in network.modules() if hasattr(each, "out_channels")]
    if sum(channels) % 5 == 0:
        raise ValueError("unlucky")
    return sum(count % 2 for count in channels)

def nan(network, image):
    return math.nan

def text(network, image):
    return "low"

def raises(network, image):
    raise ValueError("not today")
"""


def _costs(folder: Path) -> str:
    file = folder / "costs.py"
    file.write_text(_COSTS)
    return str(file)


def _spec(output: Path, **values: Any) -> SearchSpec:
    return read_spec(
        {
            "name": "budgets",
            "task": {"model": "digits-net"},
            "evaluations": 24,
            "finalists": 1,
            "finetune": {"epochs": 0},
            "measures": ["accuracy"],
            "output": str(output),
            **values,
        }
    )


@pytest.fixture(scope="module")
def searched(
    local_ray: None, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Summary, str]:
    """A finished search under five budgets, and the name of the user's own cost."""
    folder = tmp_path_factory.mktemp("budgets")
    own = f"{_costs(folder)}:odd"
    # Residual streams, which stay whole, are what the network's peak is made of.
    budgets = {"flops": 0.6, "params": "60%", "activation-memory": "100%", "latency": 0.97}
    spec = _spec(folder / "run", budgets={**budgets, own: "3 layers"})
    return run_search(spec), own


@pytest.mark.slow
def test_every_cost_reaches_history_record_and_summary(searched: tuple[Summary, str]) -> None:
    summary, own = searched
    (best,) = summary.best
    history = TrialHistory(summary.folder / "histories" / best.trial).load()
    assert len(history) == 24
    for asked in history:
        assert set(asked.costs) >= set(best.budget)
        if not math.isnan(asked.reward):
            assert asked.costs[own] == sum(width % 2 for width in asked.candidate)
            within = [asked.costs["flops"] <= 0.6, asked.costs["params"] <= 0.6]
            within += [asked.costs["latency"] <= 0.97, asked.costs[own] <= 3]
            assert asked.feasible == all(within)
    assert f"costs.{own}" in read_record(summary.folder / "evaluations").column_names
    assert best.costs is not None and best.feasible


@pytest.mark.slow
def test_a_cost_that_breaks_in_the_middle_loses_nothing(searched: tuple[Summary, str]) -> None:
    summary, _ = searched
    history = TrialHistory(summary.folder / "histories" / summary.best[0].trial).load()
    broken = {asked.candidate for asked in history if math.isnan(asked.reward)}
    assert broken and not any(asked.feasible for asked in history if asked.candidate in broken)
    for row in read_record(summary.folder / "evaluations").to_pylist():
        said = row["error"] or ""
        assert ("raised ValueError: unlucky" in said) == (tuple(row["candidate"]) in broken)


@pytest.mark.slow
def test_the_network_is_measured_as_it_is_delivered(searched: tuple[Summary, str]) -> None:
    summary, own = searched
    (best,) = summary.best
    assert best.artifact is not None and best.costs is not None and best.candidate is not None
    assert set(best.measured) == {own, "latency", "activation-memory"}
    assert best.measured[own] == best.costs[own]
    assert best.measured["activation-memory"] == 24832
    assert 0 < best.measured["latency"] < 1
    verified = verify_artifact(summary.folder / best.artifact)
    assert verified["measured"]["measured"] == best.measured
    assert load_artifact(summary.folder / best.artifact).widths == best.candidate


@pytest.mark.slow
def test_curves_are_in_the_tensorboard_logs(searched: tuple[Summary, str]) -> None:
    summary, _ = searched
    (best,) = summary.best
    curves = scalars(summary.folder / "tune" / best.trial)
    rows = len(list((summary.folder / "histories" / best.trial).glob("*.parquet")))
    for cost in best.budget:
        for figure in ("episode_costs", "multipliers"):
            # TensorBoard's tags have no colons.
            tag = f"ray/tune/{figure}/{cost.replace(':', '_')}"
            curve = curves[tag]
            assert len(curve) == rows and np.isfinite(curve).all()
    for figure in ("episode_return", "entropy/default_policy", "feasible_share"):
        (curve,) = (v for tag, v in curves.items() if tag.endswith(figure))
        assert len(curve) == rows and np.isfinite(curve).all()


@pytest.mark.slow
def test_the_report_shows_curves_and_what_was_measured(searched: tuple[Summary, str]) -> None:
    summary, _ = searched
    page, results = write_report(summary.folder)
    (best,) = summary.best
    policy = results.policies[best.trial]
    assert policy and all(set(row) == {"return", "entropy"} for row in policy)
    assert {path.name for path in page.parent.glob("*.png")} >= {
        "costs.png",
        "multipliers.png",
        "policies.png",
    }
    text = page.read_text()
    assert "measured 24.83 kB" in text and "costs:odd" in text


@pytest.mark.slow
def test_a_continued_search_keeps_its_latency_table(searched: tuple[Summary, str]) -> None:
    summary, own = searched
    folder = RunFolder.open(summary.folder)
    table = folder.read_json("costs.json")
    assert table["latency"]["constant"] >= 0 and table["own"] == {own: 0.0}
    # As if it had been measured on another day: what the run began with counts.
    table["latency"]["constant"] *= 1.001
    folder.write_json("costs.json", table)
    continued = prepare(read_spec(folder.read_spec()), folder=folder)
    assert continued.costs.tables.latency == table["latency"]


@pytest.mark.parametrize(
    ("budgets", "error", "said"),
    [
        ({"{file}:nan": 0.5}, EvaluationError, "returned nan; it must be finite"),
        ({"{file}:text": 0.5}, EvaluationError, "must return a number"),
        ({"{file}:raises": 0.5}, EvaluationError, "raised ValueError: not today"),
        ({"{file}:nun": 0.5}, PruneTuneError, "did you mean 'nan'"),
        ({"{file}:odd": 0.5}, BudgetError, "give an absolute limit"),
        ({"activation-memory": "100B"}, BudgetError, "cannot be reached.*costs.*B\\)"),
        ({"latency": "1us"}, BudgetError, "cannot be reached.*costs.*us\\)"),
        ({"flops": 0.5, "latancy": 0.5}, PruneTuneError, "did you mean 'latency'"),
    ],
)
def test_budgets_that_cannot_be_are_refused_before_anything_is_written(
    cache_folder: Path,
    tmp_path: Path,
    budgets: Mapping[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    file = _costs(tmp_path)
    named = {name.replace("{file}", str(file)): limit for name, limit in budgets.items()}
    with pytest.raises(error, match=said) as caught:
        run_comparison(_spec(tmp_path / "run", budgets=named))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("budgets: {flops: 0.5}\nevaluations: 0", "evaluations"),
        ("budgets: {}", "budgets"),
        ("budgets: {flops: 0.5, flops: 0.3}", "flops"),
        ("budgets: {flops: [0.7, 0.2]}", "flops"),
    ],
)
def test_specs_that_make_no_sense_end_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: str,
    said: str,
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"task: {{model: digits-net}}\n{written}\noutput: {tmp_path / 'run'}\n")
    monkeypatch.setattr(sys, "argv", ["prunetune", "search", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
