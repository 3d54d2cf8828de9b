"""Ranges of budgets end to end: one search, a network for every limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prunetune.errors import SpecError
from prunetune.models.artifact import verify_artifact
from prunetune.search.engine.entry import run_comparison, run_search
from prunetune.search.report.write import write_report
from prunetune.search.run.record import read_record
from prunetune.search.run.summary import Summary
from prunetune.search.spec.reading import SearchSpec, read_spec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray", "cache_folder")]

_AGENTS = ["ppo-lagrangian", "random"]


def _spec(output: Path, **values: Any) -> SearchSpec:
    return read_spec(
        {
            "task": {"model": "digits-net"},
            "budgets": {"flops": [0.3, 0.7], "params": 0.8},
            "evaluations": 60,
            "finetune": {"epochs": 0},
            "finalists": 1,
            "measures": ["accuracy", "agreement"],
            "reward": "agreement",
            "output": str(output),
            **values,
        }
    )


@pytest.fixture(scope="module")
def searched(
    local_ray: None, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Summary:
    """Two agents over a range, which see a sample of the validation images."""
    folder = tmp_path_factory.mktemp("ranges") / "run"
    return run_comparison(_spec(folder, images=150, compare={"agents": _AGENTS}))


@pytest.mark.slow
def test_a_search_over_a_range_delivers_a_network_for_every_limit(searched: Summary) -> None:
    summary = searched
    assert summary.status == "finished"
    for agent in _AGENTS:
        bests = [best for best in summary.best if best.agent == agent]
        assert [best.budget["flops"] for best in bests] == [0.3, 0.4, 0.5, 0.6, 0.7]
        assert len({best.search_name for best in bests}) == 1
        for best in bests:
            assert best.error is None and best.artifact is not None and best.costs is not None
            assert best.feasible and best.costs["flops"] <= best.limits["flops"]
            assert best.costs["params"] <= 0.8 and best.budget["params"] == 0.8
            verify_artifact(summary.folder / best.artifact)
        # What keeps a smaller limit keeps a larger one, so that the rewards of a front ascend.
        rewards = [best.search_reward for best in bests]
        assert rewards == sorted(rewards)
    page = write_report(summary.folder)[0].read_text()
    assert "FLOPs ≤ 40 %" in page and "FLOPs ≤ 70 %" in page


@pytest.mark.slow
def test_what_a_sample_of_the_images_leaves_uncertain_is_recorded(searched: Summary) -> None:
    rows = read_record(searched.folder / "evaluations").to_pylist()
    assert rows
    for row in rows:
        assert row["standard_errors.agreement"] > 0
        assert 0 <= row["standard_errors.accuracy"] < 0.1
    page = write_report(searched.folder)[0].read_text()
    assert "on a sample of 150 validation images" in page


def test_an_agent_that_follows_no_range_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for agent in ("tpe", "cma-es", "amc"):
        with pytest.raises(SpecError, match=f"'{agent}' searches for a single limit"):
            run_search(_spec(tmp_path / agent, agent=agent))
        assert not (tmp_path / agent).exists()
