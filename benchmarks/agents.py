"""Agents against each other: best feasible candidate against number of evaluations.

    python benchmarks/agents.py --run runs/agents --seeds 5 --evaluations 1000
    python benchmarks/agents.py --run runs/agents runs/more --report

Runs a comparison of agents and budgets (``prunetune compare``) in the first folder of ``--run``, or
continues the one that is there. Then the best feasible candidate that each search knew of after so
many evaluations is repaired, not fine-tuned, and tested on all test images, which no search sees.
With ``--report`` nothing is run: searches of all the folders, which must have the same task, are
tested and reported together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task_spec,
)
from numpy.typing import NDArray
from prunetune.models import Candidate, gather_statistics, load_task
from prunetune.models.builder import CandidateBuilder, Repair
from prunetune.models.task import PruningTask
from prunetune.search.engine.entry import resume_run, run_comparison
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.reading import read_spec
from prunetune.search.spec.trials import comparison_trials

_TESTED = "tested.json"
_LAST_SHARE = 0.2


@dataclass(frozen=True)
class Searched:
    """One finished search.

    Attributes:
        agent: The agent's name, with its parameters where there are any.
        budget: Limits by cost, for people.
        limits: Limits as fractions of dense, by cost.
        seed: Of the agent.
        history: All candidates, in order.
    """

    agent: str
    budget: str
    limits: dict[str, float]
    seed: int
    history: list[Asked]

    def best_after(self, evaluations: int) -> Asked | None:
        """The best feasible one of the first candidates."""
        feasible = [each for each in self.history[:evaluations] if each.feasible]
        return max(feasible, key=lambda each: each.reward, default=None)

    def curve(self, evaluations: int) -> NDArray[np.float64]:
        """Best feasible reward after 1, 2, ... evaluations; not-a-number before there is one."""
        rewards = [each.reward if each.feasible else -np.inf for each in self.history]
        best = np.maximum.accumulate(np.array(rewards[:evaluations], dtype=np.float64))
        # An agent that has no more to ask keeps what it found.
        best = np.pad(best, (0, evaluations - len(best)), mode="edge")
        return np.where(np.isfinite(best), best, np.nan)

    def last_part(self) -> tuple[float, dict[str, float]]:
        """Feasible share and mean costs over limits, of the last fifth of the candidates."""
        last = self.history[-max(1, int(_LAST_SHARE * len(self.history))) :]
        share = float(np.mean([each.feasible for each in last]))
        costs = {
            name: float(np.mean([each.costs[name] for each in last])) / limit
            for name, limit in self.limits.items()
        }
        return share, costs


class Tester:
    """Test accuracy of candidates after a repair; what was tested once is read from a file.

    Args:
        spec: The spec whose task it is.
        path: The file.
    """

    def __init__(self, spec: SearchSpec, path: Path) -> None:
        self._spec, self._path = spec, path
        self._known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        self._parts: tuple[PruningTask, CandidateBuilder, Any] | None = None

    def test(self, widths: Candidate, repair: Repair) -> float:
        """Accuracy on the test images, a fraction."""
        key = f"{repair}:{','.join(map(str, widths))}"
        if key not in self._known:
            _, builder, images = self._load()
            network = builder.build(widths, repair)
            norms = builder.statistics.norms
            self._known[key] = measured_accuracy(network, norms, images, "bf16")
            self._path.write_text(json.dumps(self._known))
        return self._known[key]

    def _load(self) -> tuple[PruningTask, CandidateBuilder, Any]:
        if self._parts is None:
            task = load_task(self._spec.task, self._spec.seed)
            statistics = gather_statistics(task, self._spec.criterion, self._spec.seed)
            self._parts = task, CandidateBuilder(task, statistics), task.test()
        return self._parts


def run(options: argparse.Namespace, folder: Path) -> None:
    """Run the comparison, or continue it."""
    if (folder / "spec.yaml").is_file():
        resume_run(folder)
        return
    values = {
        "name": "agents",
        "task": real_task_spec(
            options.network,
            options.data,
            calibration=options.calibration,
            validation=options.validation,
            augmentation=options.augmentation,
        ).model_dump(mode="json"),
        "budgets": json.loads(options.budgets[0]),
        "reward": options.reward,
        "repair": options.repair,
        "recalibration": options.recalibration,
        "measures": [
            "accuracy",
            "loss",
            {"name": "agreement", "parameters": {"temperature": options.temperature}},
        ],
        "evaluations": options.evaluations,
        "seed": options.seed,
        "finalists": 1,
        "finetune": {"epochs": 0},
        "output": str(folder),
        "cluster": {"evaluators": options.evaluators},
        "compare": {
            "budgets": [json.loads(each) for each in options.budgets],
            "agents": [_agent(each) for each in options.agents],
            "seeds": options.seeds,
            "concurrent": options.concurrent,
        },
    }
    run_comparison(read_spec(values))


def _agent(written: str) -> Any:
    return json.loads(written) if written.startswith("{") else written


def searches(folder: Path) -> tuple[SearchSpec, list[Searched]]:
    """The spec of a run and its searches."""
    opened = RunFolder.open(folder)
    spec = read_spec(opened.read_spec())
    found = []
    for trial in comparison_trials(spec):
        history = TrialHistory(opened.histories / trial.name).load()
        if not history:
            continue
        parameters = [f"{key} {value}" for key, value in trial.agent.parameters.items()]
        found.append(
            Searched(
                " ".join([trial.agent.name, *parameters]),
                ", ".join(f"{cost} {limit}" for cost, limit in trial.budgets.items()),
                {cost: float(limit) for cost, limit in trial.budgets.items()},
                trial.seed,
                history,
            )
        )
    return spec, found


def report(
    options: argparse.Namespace, spec: SearchSpec, found: Sequence[Searched], tester: Tester
) -> list[dict[str, Any]]:
    """Test, print one table per budget, and return its rows."""
    rows = []
    for budget in dict.fromkeys(each.budget for each in found):
        chosen = [each for each in found if each.budget == budget]
        mine = [
            _row([each for each in chosen if each.agent == agent], options, tester)
            for agent in dict.fromkeys(each.agent for each in chosen)
        ]
        lines = [
            [
                row["agent"],
                str(row["seeds"]),
                *(_spread(row["test"][str(count)]) for count in options.after),
                f"{100 * row['feasible']:.0f}",
                ", ".join(f"{name} {value:.3f}" for name, value in row["cost"].items()),
            ]
            for row in mine
        ]
        columns = ["agent", "seeds", *(f"after {count}" for count in options.after)]
        columns += ["feasible at the end, %", "mean cost there / limit"]
        print_table(
            f"Test accuracy, %, median (lowest to highest): {spec.task.model}, {budget}, "
            f"reward {spec.reward.name}, {options.test_repair} repair, no fine-tuning",
            columns,
            lines,
        )
        rows += mine
    return rows


def _row(group: Sequence[Searched], options: argparse.Namespace, tester: Tester) -> dict[str, Any]:
    tests: dict[str, list[float]] = {}
    rewards: dict[str, list[float]] = {}
    for count in options.after:
        best = [candidate for each in group if (candidate := each.best_after(count)) is not None]
        tests[str(count)] = [tester.test(each.candidate, options.test_repair) for each in best]
        rewards[str(count)] = [each.reward for each in best]
        print(f"{group[0].agent}, {group[0].budget}, after {count}: tested", flush=True)
    ends = [each.last_part() for each in group]
    return {
        "agent": group[0].agent,
        "budget": group[0].budget,
        "seeds": len(group),
        "test": tests,
        "reward": rewards,
        "feasible": float(np.median([share for share, _ in ends])),
        "feasible_lowest": float(np.min([share for share, _ in ends])),
        "cost": {name: float(np.median([cost[name] for _, cost in ends])) for name in ends[0][1]},
    }


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "nothing feasible"
    low, middle, high = (100 * value for value in np.quantile(values, [0.0, 0.5, 1.0]))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def plot(path: Path, found: Sequence[Searched], rows: Sequence[dict[str, Any]], count: int) -> None:
    """Best feasible reward against evaluations, and the test accuracy of every search's best."""
    from matplotlib.figure import Figure

    budgets = list(dict.fromkeys(each.budget for each in found))
    figure = Figure(figsize=(9.6, 3.4 * len(budgets)), layout="constrained")
    panels = figure.subplots(len(budgets), 2, squeeze=False)
    for line, budget in zip(panels, budgets, strict=True):
        names: list[str] = []
        for index, agent in enumerate(dict.fromkeys(each.agent for each in found)):
            chosen = [e.curve(count) for e in found if (e.agent, e.budget) == (agent, budget)]
            row = next((r for r in rows if (r["agent"], r["budget"]) == (agent, budget)), None)
            if not chosen or row is None or not row["test"][str(count)]:
                continue
            colour = f"C{index}"
            curves = np.array(chosen)
            known = np.isfinite(curves).all(axis=0)
            steps = np.arange(1, count + 1)[known]
            low, middle, high = np.quantile(curves[:, known], [0.0, 0.5, 1.0], axis=0)
            line[0].plot(steps, middle, color=colour, label=agent)
            line[0].fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            tests = 100 * np.array(row["test"][str(count)])
            line[1].scatter(np.full(len(tests), index), tests, s=14, color=colour)
            line[1].hlines(np.median(tests), index - 0.3, index + 0.3, color=colour)
            names.append(agent)
        line[0].set_ylabel(f"{budget}\nbest feasible reward")
        line[1].set_ylabel(f"test accuracy after {count}, %\nsearches and their median")
        line[1].set_xticks(range(len(names)), names, fontsize=8, rotation=20)
        line[0].set_xlabel("evaluations")
        # The worst of random starts would hide what happens later.
        bests = [c for e in found if e.budget == budget for c in e.curve(count)[count // 20 :]]
        line[0].set_ylim(np.nanquantile(bests, 0.05), np.nanmax(bests) + 0.01)
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run what is missing, test, and print tables and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--run", type=Path, nargs="+", default=[Path("runs/agents")])
    arguments.add_argument("--report", action="store_true", help="run nothing")
    arguments.add_argument("--network", default="resnet20")
    arguments.add_argument(
        "--agents",
        nargs="+",
        default=["ppo-lagrangian", "uniform", "random", "tpe", "cma-es", "amc"],
        help="names, or JSON with name and parameters",
    )
    arguments.add_argument(
        "--budgets", nargs="+", default=['{"flops": 0.5}', '{"flops": 0.3}'], help="JSON"
    )
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--evaluations", type=int, default=1000)
    arguments.add_argument("--after", type=int, nargs="+", default=[100, 300, 1000])
    arguments.add_argument("--test-repair", choices=("quick", "light", "full"), default="full")
    arguments.add_argument("--reward", default="agreement")
    arguments.add_argument("--temperature", type=float, default=4.0, help="of the agreement")
    arguments.add_argument("--repair", default="quick")
    arguments.add_argument("--calibration", type=int, default=512)
    arguments.add_argument("--validation", type=int, default=1000)
    arguments.add_argument(
        "--augmentation",
        choices=("none", "crop-and-mirror", "randaugment"),
        default="crop-and-mirror",
        help="of validation images, which the networks were trained on",
    )
    arguments.add_argument("--recalibration", type=int, default=128)
    arguments.add_argument("--evaluators", type=int, default=2)
    arguments.add_argument("--concurrent", type=int, default=2)
    arguments.add_argument("--plot", type=Path, help="where the plot goes (PNG)")
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.agents = SMOKE_NETWORK, ["ppo-lagrangian", "uniform", "random"]
        options.budgets, options.seeds = options.budgets[:1], 1
        options.evaluations, options.after, options.evaluators = 24, [24], 1
        options.run = [Path(tempfile.mkdtemp()) / "run"]
    torch.set_num_threads(1)
    if not options.report:
        run(options, options.run[0])
    spec, found = searches(options.run[0])
    for other in options.run[1:]:
        found += searches(other)[1]
    tester = Tester(spec, options.run[0] / _TESTED)
    rows = report(options, spec, found, tester)
    if options.plot is not None:
        plot(options.plot, found, rows, max(options.after))
    print_result(
        "agents",
        network=spec.task.model,
        reward=spec.reward.name,
        repair=spec.repair,
        calibration=spec.task.calibration,
        validation=spec.task.validation,
        augmentation=spec.task.augment_validation,
        recalibration=spec.recalibration,
        temperature=options.temperature,
        evaluations=spec.evaluations,
        test_repair=options.test_repair,
        rows=rows,
    )


if __name__ == "__main__":
    main()
