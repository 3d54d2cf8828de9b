"""A trial as Tune runs it, restored after any iteration; and the agent behind the shield."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.errors import SpecError
from prunetune.models.costs.collection import CostTables
from prunetune.models.costs.cost import MeasuredCost
from prunetune.search.agents import make_agent
from prunetune.search.engine import problem_spec
from prunetune.search.engine.problem_spec import ProblemSpec
from prunetune.search.engine.trial import SearchTrial, TrialContext
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.spec.model import AgentSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray", "evaluated_here")]


def _structures() -> Any:
    path = Path(__file__).parents[1] / "envs" / "structures.py"
    found = importlib.util.spec_from_file_location("structures_for_trials", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


STRUCTURES = _structures()
STRUCTURE = STRUCTURES.chain([16, 32, 32, 64])
DENSE = STRUCTURES.AnalyticEvaluator(STRUCTURE).evaluate((16, 32, 32, 64))
BUDGETS: dict[str, float | str] = {"flops": 0.5, "odd": "0.5 parts"}


class _Here:
    """Evaluates by a formula in this process, as a pool would in others."""

    def __init__(self, name: str) -> None:
        self.evaluate = STRUCTURES.AnalyticEvaluator(STRUCTURE)


@pytest.fixture
def evaluated_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_spec, "PoolClient", _Here)


@pytest.fixture
def trials() -> Iterator[Any]:
    """Builds trials, each with folders of its own, and ends them."""
    begun: list[SearchTrial] = []

    def begin(folder: Path, agent: AgentSpec) -> SearchTrial:
        context = TrialContext(
            histories=folder / "histories",
            experiment=folder / "tune",
            rungs=folder / "rungs",
            pool="here",
            structure=STRUCTURE.to_dict(),
            dense=DENSE.to_row(),
            evaluations=64,
            shield=False,
            smallest=0.0,
            costs=CostTables(own={"odd": 0.0}),
        )
        trial = {
            "name": "trial",
            "reward": "accuracy",
            "budgets": BUDGETS,
            "agent": agent.model_dump(),
            "seed": 5,
        }
        made = SearchTrial.__new__(SearchTrial)
        made.setup({"trial": trial}, context.model_dump(mode="json"))
        begun.append(made)
        return made

    yield begin
    for trial in begun:
        trial.cleanup()


def _state(trial: SearchTrial) -> list[dict[str, Any]]:
    def look(learner: Any) -> dict[str, Any]:
        ((_, optimizer),) = learner.get_optimizers_for_module("default_policy")
        return {
            "multipliers": learner.multipliers.values.tolist(),
            "learning rate": float(optimizer.param_groups[0]["lr"]),
            "KL coefficient": float(learner.curr_kl_coeffs_per_module["default_policy"]),
        }

    agent: Any = trial._agent
    return [found.get() for found in agent._algorithm.learner_group.foreach_learner(look)]


@pytest.mark.parametrize("decide", ["together", "in-order"])
@pytest.mark.parametrize("after", [1, 3])
def test_a_restored_trial_goes_on_as_if_nothing_had_happened(
    trials: Any, tmp_path: Path, decide: str, after: int
) -> None:
    agent = AgentSpec(name="ppo-lagrangian", parameters={"decide": decide, "candidates": 8})
    whole = trials(tmp_path / "whole", agent)
    for _ in range(after):
        whole.step()
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    whole.save_checkpoint(str(checkpoint))
    saved = _state(whole)
    expected = whole.step()
    # The run's folder as it was left, with an iteration that came after the checkpoint.
    shutil.copytree(tmp_path / "whole" / "histories", tmp_path / "restored" / "histories")
    restored = trials(tmp_path / "restored", agent)
    restored.load_checkpoint(str(checkpoint))
    assert _state(restored) == saved
    found = restored.step()
    # All figures, multipliers among them, and what follows from the candidates.
    assert found == expected
    assert _state(restored) == _state(whole) != saved
    histories = [
        TrialHistory(tmp_path / name / "histories" / "trial") for name in ("whole", "restored")
    ]
    first, second = (history.load() for history in histories)
    # The sampled actions, as widths.
    assert [each.candidate for each in first] == [each.candidate for each in second]
    assert len({each.candidate for each in second[-8:]}) > 1


def _problem(budgets: dict[str, float], **options: Any) -> Any:
    return STRUCTURES.problem(STRUCTURE, budgets, **options)


def _plain(budgets: dict[str, float | str]) -> ProblemSpec:
    return ProblemSpec(
        structure=STRUCTURE.to_dict(),
        dense=DENSE.to_row(),
        budgets=budgets,
        reward="accuracy",  # type: ignore[arg-type]
        shield=False,
        smallest=0.0,
        pool="here",
    )


def test_a_problem_knows_what_was_asked_for_and_what_failed(tmp_path: Path) -> None:
    widths = [(8, 16, 16, 32), (7, 16, 16, 32)]
    asked = [
        Asked(widths[0], 0.9, {"flops": 0.4, "odd": 0.25}, True, 0),
        Asked(widths[1], math.nan, {"flops": 0.3, "odd": 0.5}, False, 1),
    ]
    TrialHistory(tmp_path).write(0, asked)
    plain = _plain({"flops": 0.5})
    past = plain.model_copy(update={"history": tmp_path}).build().past()
    assert past.candidates.tolist() == [list(each) for each in widths]
    np.testing.assert_array_equal(past.costs["flops"], [0.4, np.nan])
    np.testing.assert_array_equal(past.costs["odd"], [0.25, np.nan])
    assert plain.build().past().widths.size == 0


def test_amc_keeps_two_budgets_by_the_shield_alone_and_learns() -> None:
    budgets = {"flops": 0.5, "params": 0.4}
    spec = AgentSpec(name="amc", parameters={"candidates": 32})
    agent = make_agent(spec, _problem(budgets), _plain(dict(budgets)), 0, 384)
    iterations = [agent.iterate(384) for _ in range(12)]
    agent.stop()
    outcomes = [each.outcome for each in iterations if each.outcome is not None]
    assert len(outcomes) == 12
    assert all(outcome.feasible.all() for outcome in outcomes)
    for each in iterations:
        assert [each.figures[f"multipliers/{cost}"] for cost in budgets] == [0.0, 0.0]
    means = [float(np.mean(outcome.rewards)) for outcome in outcomes]
    assert np.mean(means[-3:]) > np.mean(means[:3])


def test_amc_refuses_what_no_shield_can_hold() -> None:
    problem = _problem({"flops": 0.5, "odd": 0.5}, costs=(MeasuredCost("odd", 0.0),))
    with pytest.raises(SpecError, match="cannot hold odd: it is known only after an evaluation"):
        make_agent(AgentSpec(name="amc"), problem, _plain({"flops": 0.5}), 0, 64)
