"""What the entropies add to an evaluation with all other measures, in processor time.

Each candidate is evaluated once with every measure but the entropies and once with all, in turn;
the figure is the median over candidates of the ratio. One thread.
"""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    jittered_widths,
    parser,
    print_result,
    print_table,
    real_task,
    timed,
)
from prunetune.rewards import DEFAULT_MEASURES
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec

_ENTROPIES = ("spatial-entropy", "spatial-entropy-256", "neuron-entropy")


def main() -> None:
    """Time both and print a table and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--networks", nargs="+", default=["resnet20", "resnet56"])
    arguments.add_argument("--flops", type=float, default=0.5)
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--candidates", type=int, default=7)
    options = arguments.parse_args()
    if options.smoke:
        options.networks, options.candidates, options.images = [SMOKE_NETWORK], 2, 200
    torch.set_num_threads(1)
    others = tuple(each for each in DEFAULT_MEASURES if each.name not in _ENTROPIES)
    rows = []
    for network in options.networks:
        task = real_task(network, options.data, validation=options.images, seed=options.seed)
        without = build_evaluator(task, EvaluatorSpec(measures=others), options.seed)
        everything = build_evaluator(task, EvaluatorSpec(), options.seed)
        rng = np.random.default_rng(options.seed)
        seconds = []
        for number in range(options.candidates + 1):
            widths = jittered_widths(everything.groups.structure, options.flops, 0.2, rng)
            pair = [timed(partial(each.evaluate, widths))[1].cpu for each in (without, everything)]
            if number:  # the first candidate only warms up
                seconds.append(pair)
        rows.append(
            {
                "network": network,
                "images": len(task.validation),
                "without": statistics.median(pair[0] for pair in seconds),
                "with": statistics.median(pair[1] for pair in seconds),
                "added": statistics.median(pair[1] / pair[0] - 1 for pair in seconds),
            }
        )
    print_table(
        f"Entropies at {100 * options.flops:g} % FLOPs, seconds of processor time",
        ["network", "images", "without entropies", "with", "they add"],
        [[*list(row.values())[:4], f"{100 * float(row['added']):.0f} %"] for row in rows],
    )
    print_result("entropy_cost", flops=options.flops, candidates=options.candidates, rows=rows)


if __name__ == "__main__":
    main()
