"""Whether the fast evaluator can be trusted: bf16 against fp32, and memory over many evaluations.

    python benchmarks/precision_and_memory.py --network resnet56 --candidates 100
    python benchmarks/precision_and_memory.py --parts memory --evaluations 2000

Precision: accuracy of the dense network over all test images in both, and Spearman's correlation
of the validation accuracies of random candidates. Memory: the resident set of a process while
one evaluator evaluates ever new candidates, for a network with plain convolutions and for one with
depthwise and one with grouped convolutions (their weights are random; memory does not mind).
"""

from __future__ import annotations

import argparse
import gc
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import (
    SMOKE_NETWORK,
    jittered_widths,
    measured_accuracy,
    parser,
    print_result,
    print_table,
    real_task,
    spearman,
    spearman_interval,
)
from prunetune.cluster.resources import EvaluatorResources
from prunetune.models import TaskSpec, TrainingSpec, gather_statistics, load_task
from prunetune.rewards import NamedSpec
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from torch import nn

_MEMORY_IMAGES = 100
_MARKS = 10


class GroupedNetwork(nn.Module):
    """Grouped convolutions, one after another: what ResNeXt's blocks hold.

    Args:
        num_classes: Outputs.
        input_shape: (channels, height, width) of an image.
    """

    def __init__(self, num_classes: int, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(input_shape[0], 32, 1),
            _convolution(32, 64, 1),
            _convolution(64, 64, 8),
            _convolution(64, 64, 4),
            _convolution(64, 64, 1),
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, num_classes]."""
        return self.linear(self.features(x).mean(dim=(2, 3)))


def _convolution(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def compare_precisions(options: argparse.Namespace) -> dict[str, Any]:
    """Dense accuracies over all test images, and candidates' accuracies in both precisions."""
    task = real_task(options.network, options.data, validation=options.images, seed=options.seed)
    norms = gather_statistics(task, EvaluatorSpec().criterion, options.seed).norms
    test = task.test()
    dense = {
        precision: measured_accuracy(task.network, norms, test, precision)
        for precision in ("fp32", "bf16")
    }
    measures = (NamedSpec(name="accuracy"), NamedSpec(name="agreement"))
    evaluators = {
        "fp32": build_evaluator(
            task, EvaluatorSpec(precision="fp32", measures=measures), options.seed
        ),
        "bf16": build_evaluator(
            task, EvaluatorSpec(precision="bf16", measures=measures), options.seed
        ),
    }
    structure = evaluators["fp32"].groups.structure
    rng = np.random.default_rng(options.seed)
    found: dict[str, dict[str, list[float]]] = {
        measure.name: {precision: [] for precision in evaluators} for measure in measures
    }
    for number in range(options.candidates):
        widths = jittered_widths(structure, options.flops, options.spread, rng)
        for precision, evaluator in evaluators.items():
            for name, value in evaluator.evaluate(widths).measures.items():
                found[name][precision].append(value)
        if (number + 1) % 20 == 0:
            print(f"{number + 1}/{options.candidates} candidates", flush=True)
    lines: list[list[object]] = [
        [f"dense accuracy, {len(test)} test images, %", *(f"{100 * a:.2f}" for a in dense.values())]
    ]
    correlations = {}
    for name, values in found.items():
        low, high = spearman_interval(values["fp32"], values["bf16"], options.seed)
        correlations[name] = (spearman(values["fp32"], values["bf16"]), low, high)
        lines.append(
            [
                f"mean {name} of {options.candidates} candidates",
                *(float(np.mean(each)) for each in values.values()),
            ]
        )
        print(f"Spearman of {name}: {correlations[name][0]:.4f} ({low:.4f} to {high:.4f})")
    print_table(f"{options.network} at {options.flops} FLOPs", ["what", "fp32", "bf16"], lines)
    return {"dense": dense, "spearman": correlations, "candidates": found}


def memory_over_time(network: str, options: argparse.Namespace) -> list[tuple[int, float]]:
    """Resident MiB of this process after so many evaluations, at eleven moments."""
    torch.set_num_threads(1)
    task = load_task(
        TaskSpec(
            model=f"{Path(__file__).resolve()}:GroupedNetwork" if network == "grouped" else network,
            calibration=_MEMORY_IMAGES,
            validation=_MEMORY_IMAGES,
            training=TrainingSpec(epochs=0),
        ),
        options.seed,
    )
    evaluator = build_evaluator(task, EvaluatorSpec(), options.seed)
    structure = evaluator.groups.structure
    rng = np.random.default_rng(options.seed)
    marks = {round(options.evaluations * part / _MARKS) for part in range(_MARKS + 1)}
    series = []
    for number in range(options.evaluations + 1):
        if number in marks:
            gc.collect()
            series.append((number, resident_bytes() / 2**20))
        evaluator.evaluate(jittered_widths(structure, options.flops, options.spread, rng))
    return series


def resident_bytes() -> int:
    """Resident set of this process; Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * int(os.sysconf("SC_PAGE_SIZE"))


def main() -> None:
    """Measure what the options ask for."""
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", default=["precision", "memory"])
    arguments.add_argument("--network", default="resnet56", help="whose precision is checked")
    arguments.add_argument("--candidates", type=int, default=100)
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--flops", type=float, default=0.5)
    arguments.add_argument("--spread", type=float, default=0.9)
    arguments.add_argument("--evaluations", type=int, default=200)
    arguments.add_argument(
        "--memory-networks", nargs="+", default=["resnet56", "mobilenetv2", "grouped"]
    )
    options = arguments.parse_args()
    if options.smoke:
        options.network, options.memory_networks = SMOKE_NETWORK, ["grouped"]
        options.candidates, options.images, options.evaluations = 3, 100, 3
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    if "precision" in options.parts:
        result["precision"] = compare_precisions(options)
    if "memory" in options.parts:
        result["memory"] = {}
        os.environ.update(EvaluatorResources().environment)  # which the processes below inherit
        for network in options.memory_networks:
            # Of its own, since a process reuses what earlier networks left behind.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                series = process.submit(memory_over_time, network, options).result()
            result["memory"][network] = series
            print(f"{network}: {[round(mebibytes) for _, mebibytes in series]} MiB", flush=True)
        first = next(iter(result["memory"].values()))
        print_table(
            "Resident MiB after so many evaluations",
            ["network", *(str(number) for number, _ in first)],
            [
                [network, *(f"{mebibytes:.0f}" for _, mebibytes in series)]
                for network, series in result["memory"].items()
            ],
        )
    print_result("precision_and_memory", network=options.network, **result)


if __name__ == "__main__":
    main()
