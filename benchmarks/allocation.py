"""Widths without a search: an additive model of what each group costs in accuracy, and a knapsack.

    python benchmarks/allocation.py --network resnet20 --budgets 0.5 0.3

One group at a time is narrowed to several widths, with quick repair, and the divergence of the
outputs from the dense network's, KL(dense || narrowed), is measured on calibration images, without
labels. If divergences added up, the best candidate of a budget would be found by giving up units,
one after the other, where a FLOP saved costs least. That is what "divergences" does; "errors" does
the same with the error that the criterion's elimination leaves in the layers that read a group, as
a share of their output. Compare with uniform widths, and with what a search finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    for_inference,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task,
    widths_at,
)
from numpy.typing import NDArray
from prunetune.models import Structure, Widths, gather_statistics
from prunetune.models.candidates import CandidateBuilder
from prunetune.models.criteria import Evidence
from prunetune.models.criteria.residual import _reader_states
from prunetune.models.statistics import TaskStatistics
from prunetune.models.task import PruningTask
from torch import Tensor, nn

_FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
_BATCH = 100


def log_probabilities(network: nn.Module, norms: dict[str, str], images: Tensor) -> Tensor:
    """Of every class, float32 [N, classes], computed as the evaluator does."""
    inputs = images.to(torch.bfloat16, memory_format=torch.channels_last)
    fast = for_inference(network, norms, "bf16")
    with torch.inference_mode():
        outputs = torch.cat([fast(batch).float() for batch in inputs.split(_BATCH)])
    return torch.log_softmax(outputs, dim=1)


def divergences(
    task: PruningTask, builder: CandidateBuilder, images: Tensor
) -> list[NDArray[np.float64]]:
    """Of each group, KL(dense || narrowed) at every width, [units + 1]; linear in between."""
    norms = builder.statistics.norms
    sizes = builder.statistics.groups.structure.sizes
    dense = log_probabilities(task.network, norms, images)
    curves = []
    for group, units in enumerate(sizes):
        widths = sorted({max(1, round(share * units)) for share in _FRACTIONS} - {int(units)})
        found = []
        for width in widths:
            candidate = [int(size) for size in sizes]
            candidate[group] = width
            with torch.inference_mode():
                narrowed = builder.slim(tuple(candidate), "quick")
            other = log_probabilities(narrowed, norms, images)
            found.append(float((dense.exp() * (dense - other)).sum(dim=1).mean()))
        curves.append(np.interp(np.arange(units + 1), [*widths, units], [*found, 0.0]))
    return curves


def errors(task: PruningTask, statistics: TaskStatistics) -> list[NDArray[np.float64]]:
    """Of each group, what elimination leaves of its readers' outputs unexplained, [units + 1]."""
    evidence = Evidence(task.network, task.calibration, statistics.moments, statistics.norms, 0)
    curves = []
    for group, order in zip(statistics.groups, statistics.orders, strict=True):
        states = [
            state
            for member in group.readers()
            if member.layer in evidence.moments
            for state in _reader_states(member, evidence)
        ]
        total = sum(
            float(((state.weight @ torch.linalg.inv(state.precision)) * state.weight).sum())
            for state in states
        )
        curve = np.zeros(group.size + 1)
        for width in range(group.size - 1, 0, -1):
            unit = torch.tensor([order[width]])
            growth = sum(float(state.growth(unit)) for state in states)
            curve[width] = curve[width + 1] + growth / total
            for state in states:
                state.remove(int(order[width]))
        curve[0] = 1.0
        curves.append(curve)
    return curves


def allocate(structure: Structure, curves: Sequence[NDArray[np.float64]], flops: float) -> Widths:
    """Give up units where a FLOP saved costs least, until the budget is met."""
    convex = [_lower_hull(curve) for curve in curves]
    widths = structure.sizes.copy()
    limit = flops * structure.dense_flops
    while int(structure.flops(widths)) > limit:
        narrower = widths - np.eye(len(widths), dtype=np.int64)
        saved = int(structure.flops(widths)) - structure.flops(np.maximum(narrower, 1))
        lost = [
            curve[width - 1] - curve[width] for curve, width in zip(convex, widths, strict=True)
        ]
        price = np.where(widths > 1, np.array(lost) / np.maximum(saved, 1), np.inf)
        widths[int(price.argmin())] -= 1
    return tuple(int(width) for width in widths)


def _lower_hull(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest convex curve below the points of widths 1 and more, [units + 1]."""
    kept: list[int] = []
    for width in range(1, len(curve)):
        while len(kept) > 1:
            a, b = kept[-2:]
            if (curve[b] - curve[a]) * (width - a) < (curve[width] - curve[a]) * (b - a):
                break
            kept.pop()
        kept.append(width)
    hull = np.interp(np.arange(len(curve)), kept, curve[kept])
    hull[0] = np.inf
    return np.asarray(hull)


def main() -> None:
    """Measure, allocate, test, and print a table and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--network", default="resnet20")
    arguments.add_argument("--budgets", nargs="+", type=float, default=[0.5, 0.3])
    arguments.add_argument("--images", type=int, default=256, help="for the divergences")
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.budgets = SMOKE_NETWORK, [0.5]
    torch.set_num_threads(1)
    task = real_task(options.network, options.data, seed=options.seed)
    statistics = gather_statistics(task, "activation-residual", options.seed)
    builder = CandidateBuilder(task, statistics)
    structure = statistics.groups.structure
    models = {
        "divergences": divergences(task, builder, task.calibration[: options.images]),
        "errors": errors(task, statistics),
    }
    test = task.test()
    rows = []
    for budget in options.budgets:
        uniform = widths_at(structure, budget, np.ones(len(structure.groups)))
        chosen = {name: allocate(structure, curves, budget) for name, curves in models.items()}
        for name, widths in {"uniform": uniform, **chosen}.items():
            row = {"budget": budget, "widths from": name, "widths": widths}
            row["flops"] = int(structure.flops(widths)) / structure.dense_flops
            for repair in ("quick", "full"):
                network = builder.build(widths, repair)
                row[repair] = measured_accuracy(network, statistics.norms, test, "fp32")
            rows.append(row)
            print(row, flush=True)
    print_table(
        f"Test accuracy of {options.network} without search or fine-tuning, %",
        ["FLOPs", "widths from", "quick repair", "full repair"],
        [
            [
                f"{row['flops']:.3f}",
                row["widths from"],
                f"{100 * row['quick']:.2f}",
                f"{100 * row['full']:.2f}",
            ]
            for row in rows
        ],
    )
    print_result("allocation", network=options.network, images=options.images, rows=rows)


if __name__ == "__main__":
    main()
