"""Widths without a search: what each group alone costs in agreement, and a knapsack.

    python benchmarks/allocation.py --network resnet20 --budgets 0.5 0.3

One group at a time is narrowed to a few widths and evaluated as a search would do it; widths are
then given up where a FLOP saved costs least (`search/agents/together/allocation.py`). Here
``ppo-lagrangian`` starts, once for each repair inside the evaluation. Compare with uniform widths,
and with what a search finds.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task,
)
from prunetune.envs.budgets import Budget
from prunetune.envs.judge import Judge
from prunetune.envs.observation import group_features
from prunetune.envs.problem import Problem
from prunetune.models.task import PruningTask
from prunetune.rewards.evaluation.evaluations import InProcessEvaluations
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from prunetune.rewards.registry import make_reward
from prunetune.search.agents.together.allocation import Sensitivity, narrowings


def sensitivities(
    task: PruningTask, repair: str, steps: int, seed: int
) -> tuple[Problem, Sensitivity, int, float]:
    """The problem, its sensitivities, and how many candidates and processor seconds they took."""
    evaluator = build_evaluator(task, EvaluatorSpec(repair=repair), seed)
    structure = evaluator.groups.structure
    problem = Problem(
        space=evaluator.builder.statistics.space,
        budgets=(Budget("flops", 1.0),),
        costs=evaluator.costs,
        reward=make_reward("agreement"),
        dense=evaluator.dense,
        features=group_features(structure),
    )
    narrowed = narrowings(problem, steps)
    began = time.process_time()
    rewards = Judge(problem, InProcessEvaluations(evaluator)).ask(narrowed).rewards
    seconds = time.process_time() - began
    return problem, Sensitivity.fit(problem, narrowed, rewards), len(narrowed), seconds


def main() -> None:
    """Measure, allocate, test, and print a table and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--network", default="resnet20")
    arguments.add_argument("--budgets", nargs="+", type=float, default=[0.5, 0.3])
    arguments.add_argument("--repairs", nargs="+", default=["quick", "light", "full"])
    arguments.add_argument("--steps", type=int, default=4, help="widths of every group")
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.budgets, options.steps = SMOKE_NETWORK, [0.5], 2
    torch.set_num_threads(1)
    task = real_task(
        options.network, options.data, augmentation="crop-and-mirror", seed=options.seed
    )
    test = task.test()
    evaluator = build_evaluator(task, EvaluatorSpec(), options.seed)
    rows = []

    def add(origin: str, budget: float, widths: tuple[int, ...], **more: float) -> None:
        structure = evaluator.groups.structure
        row = {"budget": budget, "widths from": origin, "widths": widths, **more}
        row["flops"] = int(structure.flops(widths)) / structure.dense_flops
        for repair in ("quick", "full"):
            network = evaluator.build(widths, repair)
            norms = evaluator.builder.statistics.norms
            row[repair] = measured_accuracy(network, norms, test, "fp32")
        rows.append(row)
        print(row, flush=True)

    for repair in options.repairs:
        problem, sensitivity, asked, seconds = sensitivities(
            task, repair, options.steps, options.seed
        )
        for budget in options.budgets:
            if repair == options.repairs[0]:
                limited = dataclasses.replace(problem, budgets=(Budget("flops", budget),))
                add("uniform", budget, tuple(limited.action_map.uniform.tolist()))
            widths = sensitivity.allocate(problem, np.array([[budget]]))[0]
            add(repair, budget, tuple(widths.tolist()), candidates=asked, seconds=seconds)
    print_table(
        f"Test accuracy of {options.network} without search or fine-tuning, %",
        ["FLOPs", "widths from", "candidates", "CPU s", "quick repair", "full repair"],
        [
            [
                f"{row['flops']:.3f}",
                row["widths from"],
                str(row.get("candidates", 0)),
                f"{row.get('seconds', 0.0):.0f}",
                f"{100 * row['quick']:.2f}",
                f"{100 * row['full']:.2f}",
            ]
            for row in rows
        ],
    )
    print_result("allocation", network=options.network, steps=options.steps, rows=rows)


if __name__ == "__main__":
    main()
