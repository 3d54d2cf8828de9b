"""How far the latency table is off, for candidates that it was not fitted to.

The table is made of layers that are timed by themselves; a budget of latency stands on it. This
script builds random candidates, predicts their latency and measures it:

    python benchmarks/latency_table.py --networks resnet20 resnet56 vgg16bn

Measured is processor time of one thread, the fastest block of ``torch.utils.benchmark``.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from _common import SMOKE_NETWORK, parser, print_result, print_table, real_task, spearman
from prunetune.models.costs.activation_memory import measure_peak_activations, tabulate_activations
from prunetune.models.costs.latency import LatencyCost
from prunetune.models.costs.latency_measuring import fit_latency, measure_latency
from prunetune.models.coupling import trace_channel_groups
from prunetune.models.reductions.channels import slim


def main() -> None:
    """Compare tables with measurements and print both."""
    options = parser(__doc__)
    options.add_argument("--networks", nargs="+", default=["resnet20", "resnet56", "vgg16bn"])
    options.add_argument("--candidates", type=int, default=12)
    given = options.parse_args()
    networks, count = ([SMOKE_NETWORK], 3) if given.smoke else (given.networks, given.candidates)
    torch.set_num_threads(1)
    rng = np.random.default_rng(given.seed)
    rows = []
    for network in networks:
        task = real_task(network, given.data, seed=given.seed)
        image = task.example_input
        groups = trace_channel_groups(task.network, image, task.scope)
        started = time.perf_counter()
        cost = LatencyCost(groups.structure, fit_latency(task, groups))
        seconds = time.perf_counter() - started
        memory = tabulate_activations(task.network, image, groups)
        widths = np.stack([rng.integers(1, groups.sizes, endpoint=True) for _ in range(count)])
        predicted = cost.fraction(widths) * (cost.dense or 0.0)
        measured, wrong = [], 0
        for candidate in widths:
            units = [np.arange(width, dtype=np.int64) for width in candidate]
            slimmed = slim(task.network, groups, units).eval()
            measured.append(measure_latency(slimmed, image))
            peak = int(memory.peak(candidate[None])[0])
            wrong += peak != measure_peak_activations(slimmed, image)
        errors = np.abs(predicted / np.array(measured) - 1)
        dense = measure_latency(task.network, image)
        rows.append(
            [
                network,
                f"{1e3 * dense:.2f}",
                f"{1e3 * (cost.dense or 0.0):.2f}",
                f"{100 * errors.mean():.1f}",
                f"{100 * errors.max():.1f}",
                spearman(predicted, measured),
                wrong,
                f"{seconds:.0f}",
            ]
        )
    columns = ["network", "dense ms", "by table", "mean error %", "largest %", "rank correlation"]
    title = f"{count} random candidates, float32, batch 1, one thread"
    print_table(title, [*columns, "memory wrong", "seconds to fit"], rows)
    print_result("latency_table", candidates=count, rows=rows)


if __name__ == "__main__":
    main()
