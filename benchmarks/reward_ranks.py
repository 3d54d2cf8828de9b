"""How every reward ranks candidates by validation accuracy before fine-tuning.

Reads what ``random`` asked for from the record of a comparison (``--run``), whatever its state, or
evaluates random candidates of one cost. Spearman's rank correlation between each reward on one
measure and the validation accuracy that the search sees, with its 95 % interval (Bonett & Wright
2000). Reward fidelity proper, against test accuracy after fine-tuning, is in a comparison's report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from _common import SMOKE_NETWORK, jittered_widths, parser, print_result, print_table, real_task
from prunetune.models import Candidate
from prunetune.rewards import Evaluation, score
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from prunetune.rewards.single import SINGLE_REWARDS
from prunetune.search.report import load_results
from prunetune.search.report.fidelity import rank_correlation
from prunetune.search.run.folder import RunFolder
from prunetune.search.spec.reading import read_spec
from prunetune.search.spec.trials import comparison_trials

Sets = Mapping[str, Sequence[Evaluation]]


def recorded(folder: Path) -> tuple[Sets, Evaluation]:
    """What ``random`` asked for, by budgets, and the dense network's evaluation."""
    run = RunFolder.open(folder)
    results = load_results(run)
    dense = Evaluation(tuple(results.dense.groups.values()), results.dense.measures)
    asked: dict[str, set[Candidate]] = {}
    for trial in comparison_trials(read_spec(run.read_spec())):
        _, budgets, agent = trial.kind
        if agent == "random":
            history = results.histories.get(trial.name, [])
            asked.setdefault(budgets, set()).update(each.candidate for each in history)
    known = results.evaluations
    return {
        budgets: [known[each] for each in sorted(widths) if each in known]
        for budgets, widths in asked.items()
    }, dense


def main() -> None:
    """Rank candidates and print a table and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--run", type=Path)
    arguments.add_argument("--network", default="resnet20")
    arguments.add_argument("--flops", type=float, default=0.5)
    arguments.add_argument("--candidates", type=int, default=60)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.smoke:
        options.network, options.candidates = SMOKE_NETWORK, 6
    sets: Sets
    if options.run is not None:
        sets, dense = recorded(options.run)
    else:
        task = real_task(
            options.network, options.data, seed=options.seed, augmentation="crop-and-mirror"
        )
        evaluator = build_evaluator(task, EvaluatorSpec(), options.seed)
        rng = np.random.default_rng(options.seed)
        structure = evaluator.groups.structure
        drawn = [
            jittered_widths(structure, options.flops, 0.8, rng) for _ in range(options.candidates)
        ]
        sets, dense = {"random": [evaluator.evaluate(each) for each in drawn]}, evaluator.dense
    rows = []
    for name, make in SINGLE_REWARDS.items():
        for which, evaluations in sets.items():
            values = [score(make(), each, dense) for each in evaluations]
            accuracy = [each.measures["accuracy"] for each in evaluations]
            correlation, low, high = rank_correlation(values, accuracy)
            rows.append((name, which, len(values), correlation, low, high))
    print_table(
        "Rank correlation with validation accuracy before fine-tuning",
        ["reward", "candidates", "count", "correlation", "low", "high"],
        rows,
    )
    keys = ("reward", "which", "count", "correlation", "low", "high")
    print_result("reward_ranks", rows=[dict(zip(keys, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
