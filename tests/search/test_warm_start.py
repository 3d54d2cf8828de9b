"""The agent on an analytic evaluator: it improves, keeps budgets, and starts from others."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunetune.envs.past import Past
from prunetune.envs.problem import PruningProblem
from prunetune.errors import SpecError
from prunetune.models import Candidate
from prunetune.rewards.evaluation.evaluation import Evaluation
from prunetune.search.agents.lagrangian import LagrangianAgent
from prunetune.search.agents.together.allocation import Sensitivity
from prunetune.search.agents.warm_start import read_sensitivity, write_sensitivity
from prunetune.search.engine.problem_spec import ProblemSpec
from prunetune.search.run.checkpoints import TrialProgress, seal_checkpoint
from prunetune.search.spec.reading import SearchSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

Make = Callable[..., LagrangianAgent]


def _structures() -> Any:
    path = Path(__file__).parents[1] / "envs" / "structures.py"
    found = importlib.util.spec_from_file_location("structures_for_warm_start", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


STRUCTURES = _structures()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Builds agents whose environment has the analytic evaluator, and stops them at the end."""
    built: list[LagrangianAgent] = []

    def build(
        budgets: dict[str, float],
        evaluations: int,
        sizes: tuple[int, ...] = (64, 32, 64),
        remembers: bool = False,
        **more: Any,
    ) -> LagrangianAgent:
        structure = STRUCTURES.chain(sizes)
        problem: PruningProblem = STRUCTURES.problem(structure, budgets)
        if remembers:
            problem = _remembering(problem)
        monkeypatch.setattr(ProblemSpec, "build", lambda self: problem)
        plain = ProblemSpec(
            structure=structure.to_dict(),
            dense=problem.dense.to_row(),
            budgets=budgets,
            reward="accuracy",
            shield=False,
            smallest=0.0,
            pool="",
        )
        built.append(LagrangianAgent(problem, 0, evaluations, plain, **more))
        return built[-1]

    yield build
    for agent in built:
        agent.stop()


def _remembering(problem: PruningProblem) -> PruningProblem:
    """The problem with a past: what its evaluator was asked for in earlier calls."""
    asked: list[Evaluation] = []

    def evaluate(candidates: Sequence[Candidate]) -> Sequence[Evaluation]:
        evaluations = problem.evaluate(candidates)
        asked.extend(evaluations)
        return evaluations

    def past() -> Past:
        widths = np.array([each.candidate for each in asked], dtype=np.int64)
        return Past(widths, np.array([each.measures["accuracy"] for each in asked]))

    return dataclasses.replace(problem, evaluate=evaluate, past=past)


def _run(agent: LagrangianAgent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, costs and feasibility of everything it asks for."""
    outcomes, left = [], agent.evaluations
    while (outcome := agent.iterate(left).outcome) is not None:
        outcomes.append(outcome)
        left -= len(outcome.rewards)
    return tuple(  # type: ignore[return-value]
        np.concatenate([getattr(each, name) for each in outcomes])
        for name in ("rewards", "costs", "feasible")
    )


def _keep(agent: LagrangianAgent, run: Path, trial: str = "trial") -> None:
    checkpoint = run / "tune" / trial / "checkpoint_000000"
    checkpoint.mkdir(parents=True)
    agent.save(checkpoint)
    seal_checkpoint(checkpoint, TrialProgress(iterations=1))


def test_it_improves_on_uniform_and_ends_just_below_its_budgets(make: Make) -> None:
    agent = make({"flops": 0.5, "params": 0.6}, 400)
    uniform = agent.problem.judge(agent.problem.width_map.uniform[None]).rewards[0]
    rewards, costs, feasible = _run(agent)
    # Four widths of three groups and the dense widths come first; the rest leaves few unused.
    assert 395 <= len(rewards) <= 400
    last = slice(-80, None)
    assert rewards[feasible].max() > uniform
    assert np.mean(rewards[last]) > uniform
    assert feasible[last].mean() >= 0.8
    nearest = (costs / [0.5, 0.6]).max(axis=1)
    assert 0.95 < nearest[last].mean() <= 1.0


@pytest.mark.parametrize("imagined", [0, 9])
def test_imagined_candidates_are_not_evaluated(make: Make, imagined: int) -> None:
    agent = make({"flops": 0.5}, 200, (64, 32, 64, 32), imagined=imagined)
    rewards, _, feasible = _run(agent)
    assert 190 <= len(rewards) <= 200
    # Those of the sensitivities come in one call, all others as many as the policy asks for.
    _, *calls = agent.problem.evaluate.calls  # type: ignore[attr-defined]
    assert set(calls) == {agent.candidates} and sum(calls) < len(rewards)
    assert feasible[-50:].mean() > 0.8


def test_with_a_past_to_learn_from_imagination_finds_better_candidates(make: Make) -> None:
    found = {}
    for imagined in (0, 9):
        agent = make({"flops": 0.5}, 160, (64, 32, 64, 32), imagined=imagined, remembers=True)
        rewards, _, feasible = _run(agent)
        found[imagined] = float(np.median(np.sort(rewards[feasible])[-20:]))
    assert found[9] > found[0]


def test_it_starts_from_what_narrowing_single_groups_cost(make: Make) -> None:
    agent, uniform = make({"flops": 0.4}, 80), make({"flops": 0.4}, 80, start="uniform")
    narrowed = agent.iterate(80).widths
    assert ((narrowed != agent.problem.structure.sizes).sum(axis=1) <= 1).all()
    started = agent.iterate(60).outcome
    plain = uniform.iterate(80).outcome
    assert started is not None and plain is not None
    assert np.median(started.rewards) > np.median(plain.rewards)
    # Too few evaluations for one width of every group: it starts uniformly at once.
    few = make({"flops": 0.4}, 15).iterate(15)
    assert few.outcome is not None and few.outcome.feasible.any()


def test_without_evaluations_left_it_asks_for_nothing(make: Make, tmp_path: Path) -> None:
    agent = make({"flops": 0.4}, 80, candidates=8)
    assert agent.iterate(12).outcome is None  # 13 candidates would tell how sensitive groups are
    # A policy that started uniformly goes on uniformly, whatever the default has become.
    uniform = make({"flops": 0.4}, 80, candidates=8, start="uniform")
    uniform.iterate(80)
    uniform.save(tmp_path)
    agent.load(tmp_path)
    assert agent.iterate(60).widths.tolist() == uniform.iterate(60).widths.tolist()


def test_a_restored_agent_starts_from_the_same_widths(make: Make, tmp_path: Path) -> None:
    first = make({"flops": 0.4}, 80)
    first.iterate(80)
    first.save(tmp_path)
    expected = [first.iterate(60).widths.tolist() for _ in range(2)]
    restored = make({"flops": 0.4}, 80)
    restored.load(tmp_path)
    assert [restored.iterate(60).widths.tolist() for _ in range(2)] == expected


def test_a_policy_goes_on_from_where_that_of_another_budget_ended(
    make: Make, tmp_path: Path
) -> None:
    first = make({"flops": 0.5}, 300)
    _run(first)
    _keep(first, tmp_path)
    warm = make({"flops": 0.4}, 60, init_from=str(tmp_path))
    cold = make({"flops": 0.4}, 60, start="uniform")
    assert np.median(_run(warm)[0][:20]) > np.median(_run(cold)[0][:20])


def test_only_deciding_in_order_carries_over_to_another_network(make: Make, tmp_path: Path) -> None:
    for decide in ("together", "in-order"):
        _keep(make({"flops": 0.5}, 8, decide=decide), tmp_path / decide)
    other = (8, 8, 16, 8)
    with pytest.raises(SpecError, match="another number of groups"):
        make({"flops": 0.5}, 8, other, init_from=str(tmp_path / "together"))
    agent = make({"flops": 0.5}, 8, other, decide="in-order", init_from=str(tmp_path / "in-order"))
    assert agent.iterate(8).outcome is not None


def test_a_run_without_one_policy_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no checkpoint of a search by ppo-lagrangian"):
        make({"flops": 0.5}, 8, init_from=str(tmp_path / "nothing"))
    agent = make({"flops": 0.5}, 8)
    for trial in ("a", "b"):
        _keep(agent, tmp_path, trial)
    with pytest.raises(SpecError, match=r"2 searches.*tune/a"):
        make({"flops": 0.5}, 8, init_from=str(tmp_path))
    assert make({"flops": 0.5}, 8, init_from=str(tmp_path / "tune" / "b")).evaluations == 8


def test_unknown_ways_to_decide_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="together, in-order"):
        make({"flops": 0.5}, 8, decide="sideways")
    with pytest.raises(ValueError, match="sensitivity, uniform"):
        make({"flops": 0.5}, 8, start="random")


def test_imagination_that_cannot_be_had_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="at least 0, not -1"):
        make({"flops": 0.5}, 8, imagined=-1)
    with pytest.raises(ValueError, match="need decide: together"):
        make({"flops": 0.5}, 8, decide="in-order", imagined=3)


def test_the_run_is_meant_relative_to_the_spec(tmp_path: Path) -> None:
    from prunetune.search.spec.reading import load_spec

    (tmp_path / "spec.yaml").write_text(
        "task: {model: digits-net, data: digits}\nbudgets: {flops: 0.5}\n"
        "agent: {name: ppo-lagrangian, parameters: {init_from: runs/a}}\n"
    )
    spec: SearchSpec = load_spec(tmp_path / "spec.yaml")
    assert spec.agent.parameters["init_from"] == str(tmp_path / "runs" / "a")


def test_what_a_policy_started_from_is_kept_exactly(tmp_path: Path) -> None:
    tables = np.random.default_rng(0).normal(size=(2, 3, 9))
    write_sensitivity(tmp_path, Sensitivity(tables[0], {"/a/costs.py:own": tables[1]}))
    kept = read_sensitivity(tmp_path)
    assert kept is not None and list(kept.costs) == ["/a/costs.py:own"]
    np.testing.assert_array_equal([kept.losses, kept.costs["/a/costs.py:own"]], tables)
    write_sensitivity(tmp_path / "uniform", None)
    assert read_sensitivity(tmp_path / "uniform") is None
