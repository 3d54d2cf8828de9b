"""Test accuracy without fine-tuning, for every repair, criterion and uniform width.

    python benchmarks/repair_accuracy.py --network resnet56
    python benchmarks/repair_accuracy.py --criteria l1 activation-residual --widths 0.5 0.3

Repairs: ``none`` slims and nothing else; ``recalibration`` re-estimates BatchNorm statistics too;
``quick``, ``light`` and ``full`` are the product's. Accuracy is over all test images, which no
repair sees. Seconds are those of one candidate, one thread, without what is done once per task:
``quick`` with slimming and alignment, ``light`` and ``full`` with slimming.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from _common import (
    SMOKE_NETWORK,
    Timing,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task,
    timed,
    uniform_widths,
)
from prunetune.models import (
    CRITERIA,
    Candidate,
    LabelledImages,
    PruningTask,
    gather_statistics,
)
from prunetune.models.builder import CandidateBuilder, Finish, Repair
from prunetune.models.inference.precision import cast_network
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from torch import nn

REPAIRS = ("none", "recalibration", "quick", "light", "full", "block")


@dataclass(frozen=True)
class Row:
    """One candidate.

    Attributes:
        criterion: Which ranked the channels.
        width: Share of every group that stays.
        flops: Fraction of the dense network's FLOPs that are left.
        repair: One of ``REPAIRS``.
        accuracy: On the test images, a fraction.
        timing: Of building the repaired network.
    """

    criterion: str
    width: float
    flops: float
    repair: str
    accuracy: float
    timing: Timing


def build(
    builder: CandidateBuilder, finish: Mapping[str, Finish], widths: Candidate, repair: str
) -> nn.Module:
    """The network of a candidate after one of ``REPAIRS``, for reading only.

    Args:
        builder: Of the task.
        finish: What follows ``none`` and ``quick``.
        widths: Of the candidate.
        repair: Which.
    """
    if repair == "block":
        return builder.build(widths, repair)
    if repair in ("light", "full"):
        return builder.slim(widths, "light" if repair == "light" else "full")
    if repair == "none":
        return builder.slim(widths, "none")
    asked: Repair = "quick" if repair == "quick" else "none"
    # A copy: what a slim network shares with the dense one must stay.
    network = cast_network(builder.slim(widths, asked), "fp32", torch.device("cpu"))
    finish[asked](network, widths)
    return network


def rows_of(
    task: PruningTask, criterion: str, test: LabelledImages, options: argparse.Namespace
) -> list[Row]:
    """All widths and repairs under one criterion."""
    statistics = gather_statistics(task, criterion, options.seed)
    images = task.calibration[: options.recalibration]
    structure = statistics.groups.structure
    builder = CandidateBuilder(task, statistics)
    asked: tuple[Repair, ...] = ("none", "quick")
    finish = {repair: builder.finish(repair, images) for repair in asked}
    for repair in set(options.repairs) - {"block"}:
        # What is done once per task: factorisations, and targets from the dense network.
        build(builder, finish, uniform_widths(structure, 1.0), repair)
    rows = []
    for width in options.widths:
        candidate = uniform_widths(structure, width)
        flops = int(structure.flops(candidate)) / structure.dense_flops
        for repair in options.repairs:
            network, timing = timed(partial(build, builder, finish, candidate, repair))
            found = measured_accuracy(network, statistics.norms, test, options.precision)
            rows.append(Row(criterion, width, flops, repair, found, timing))
            print(
                f"{criterion:20s} {width:.2f} {repair:14s} {100 * found:6.2f} %  "
                f"{timing.wall:6.2f} s",
                flush=True,
            )
    return rows


def main() -> None:
    """Run the grid and print two tables and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--network", default="resnet56")
    arguments.add_argument("--criteria", nargs="+", default=list(CRITERIA), choices=list(CRITERIA))
    arguments.add_argument("--widths", nargs="+", type=float, default=[0.7, 0.5, 0.3, 0.2])
    arguments.add_argument("--repairs", nargs="+", default=list(REPAIRS), choices=REPAIRS)
    arguments.add_argument("--calibration", type=int, default=512)
    arguments.add_argument("--recalibration", type=int, default=EvaluatorSpec().recalibration)
    arguments.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.widths = SMOKE_NETWORK, [0.5]
        options.criteria = options.criteria[:2]
    run(options)


def run(options: argparse.Namespace) -> None:
    """Measure what the options ask for."""
    torch.set_num_threads(1)
    task = real_task(
        options.network, options.data, calibration=options.calibration, seed=options.seed
    )
    test = task.test()
    norms = gather_statistics(task, options.criteria[0], options.seed).norms
    dense = {
        precision: measured_accuracy(task.network, norms, test, precision)
        for precision in ("fp32", "bf16")
    }
    print(f"dense: {100 * dense['fp32']:.2f} % in fp32, {100 * dense['bf16']:.2f} % in bf16")
    rows = [
        row for criterion in options.criteria for row in rows_of(task, criterion, test, options)
    ]
    _print_accuracies(options, rows)
    _print_seconds(options, rows)
    print_result(
        "repair_accuracy",
        network=options.network,
        calibration=options.calibration,
        recalibration=options.recalibration,
        precision=options.precision,
        test_images=len(test),
        dense=dense,
        rows=[{**vars(row), "timing": vars(row.timing)} for row in rows],
    )


def _print_accuracies(options: argparse.Namespace, rows: list[Row]) -> None:
    found = {(row.criterion, row.width, row.repair): row for row in rows}
    columns = ["criterion", "width", "FLOPs %", *options.repairs]
    lines = [
        [
            criterion,
            f"{width:.1f}",
            f"{100 * found[criterion, width, options.repairs[0]].flops:.1f}",
            *(
                f"{100 * found[criterion, width, repair].accuracy:.2f}"
                for repair in options.repairs
            ),
        ]
        for criterion in options.criteria
        for width in options.widths
    ]
    print_table(f"Test accuracy of {options.network}, no fine-tuning, %", columns, lines)


def _print_seconds(options: argparse.Namespace, rows: list[Row]) -> None:
    lines = []
    for width in options.widths:
        line = [f"{width:.1f}"]
        for repair in options.repairs:
            timings = [row.timing for row in rows if (row.width, row.repair) == (width, repair)]
            # The median over criteria, whose solves have the same size.
            wall = sorted(each.wall for each in timings)[len(timings) // 2]
            cpu = sorted(each.cpu for each in timings)[len(timings) // 2]
            line.append(f"{wall:.2f} ({cpu:.2f})")
        lines.append(line)
    print_table("Seconds to build a candidate, wall (CPU)", ["width", *options.repairs], lines)


if __name__ == "__main__":
    main()
