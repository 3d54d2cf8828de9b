"""Seconds per candidate: AMC's protocol, Torch-Pruning, and ours, in one run.

    python benchmarks/candidate_throughput.py --networks resnet20 resnet56 vgg16bn --rounds 7

Every round draws new widths near the target FLOPs, so that no cache knows them, and hands them to
all contenders in turn; all run the same validation images in batches of 200 on one thread:

* ``amc``: the dense network with the removed channels set to zero, float32, full cost (the protocol
  of He et al. 2018, arXiv 1802.03494; its least-squares step is not counted).
* ``torch-pruning``: deepcopy, dependency graph, prune to the same channels, float32 forward pass.
* ``ours``: slim, recalibrate and measure accuracy, without repair.
* ``ours+quick``: the same with quick repair; ``(warm)`` evaluates the same widths once more.
* ``ours+quick, sampled``: the same on ``--sampled`` of the validation images, drawn once; its
  accuracy is an estimate, and its standard error against all of them is given.
* ``ours+light``: the same with light repair.
* ``ours+quick, all measures``: what a search records by default.

Ratios are medians over rounds of that round's ratio. Wall-clock figures need a quiet machine (the
load is printed); seconds of processor time suffer less from neighbours.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch_pruning
from _common import (
    SMOKE_NETWORK,
    Timing,
    for_inference,
    jittered_widths,
    parser,
    print_result,
    print_table,
    real_task,
    timed,
)
from prunetune.models import Candidate, CandidateBuilder, PruningTask
from prunetune.models.reductions.channels import ignore_removed
from prunetune.rewards import NamedSpec
from prunetune.rewards.evaluation.evaluator import (
    CandidateEvaluator,
    build_evaluator,
)
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from torch import Tensor, nn

_BATCH = 200
_BASELINES = ("amc", "torch-pruning")
_MATRIX = 2048
_FORWARD = "forward pass"


class Found(NamedTuple):
    """A candidate's accuracy, and the standard error of one that is estimated."""

    accuracy: float
    standard_error: float | None = None


Timings = dict[tuple[float, str], list[Timing]]
"""By target FLOPs and contender, one for each round."""


@dataclass(frozen=True)
class Row:
    """What one contender took at one target.

    Attributes:
        network: Name of the network.
        flops: Median of the candidates' FLOPs, as a fraction of the dense network's.
        contender: Its name, or that of a part of an evaluation.
        precision: ``fp32`` or ``bf16``.
        wall: Seconds on the clock: median, least and most over rounds.
        cpu: Seconds of processor time, likewise.
        wall_ratios: How many times faster than each baseline, median over rounds.
        cpu_ratios: The same in processor time.
        accuracy: Mean over rounds on the validation images; None for parts.
        standard_error: Of one round's accuracy, root mean square over rounds; None where all
            images are evaluated.
        operations: FLOPs of all images at the median of the candidates' cost.
    """

    network: str
    flops: float
    contender: str
    precision: str
    wall: tuple[float, float, float]
    cpu: tuple[float, float, float]
    wall_ratios: tuple[float, ...]
    cpu_ratios: tuple[float, ...]
    accuracy: float | None
    standard_error: float | None
    operations: float

    @property
    def rate(self) -> float:
        """FLOP/s, by processor time."""
        return self.operations / self.cpu[0]


class Contenders:
    """All ways to get a candidate's accuracy on one task."""

    def __init__(self, task: PruningTask, sampled: int, recalibration: int, seed: int) -> None:
        def evaluator(**options: Any) -> CandidateEvaluator:
            spec = EvaluatorSpec(recalibration=recalibration, **options)
            return build_evaluator(task, spec, seed)

        self.task = task
        accuracy = (NamedSpec(name="accuracy"),)
        self.unrepaired = evaluator(repair="none", measures=accuracy)
        self.repaired = evaluator(measures=accuracy)
        self.sampled = evaluator(images=sampled, measures=accuracy)
        self.light = evaluator(repair="light", measures=accuracy)
        self.measured = evaluator()
        self.groups = self.unrepaired.groups
        self.precision = self.unrepaired.precision
        # One of its own, whose memory does not know the candidates that were timed before.
        self._builder = CandidateBuilder(task, self.unrepaired.builder.statistics)

    def calls(self, widths: Candidate) -> dict[str, Callable[[], Found]]:
        """What is timed, in order; each returns the accuracy of the candidate."""
        return {
            "amc": partial(self._masked, widths),
            "torch-pruning": partial(self._torch_pruning, widths),
            "ours": partial(_accuracy, self.unrepaired, widths),
            "ours+quick": partial(_accuracy, self.repaired, widths),
            "ours+quick (warm)": partial(_accuracy, self.repaired, widths),
            "ours+quick, sampled": partial(_accuracy, self.sampled, widths),
            "ours+light": partial(_accuracy, self.light, widths),
            "ours+quick, all measures": partial(_accuracy, self.measured, widths),
        }

    def _masked(self, widths: Candidate) -> Found:
        kept = self.unrepaired.kept_units(widths)
        return self._float_accuracy(ignore_removed(self.task.network, self.groups, kept))

    def _torch_pruning(self, widths: Candidate) -> Found:
        network = copy.deepcopy(self.task.network).requires_grad_(True)
        graph = torch_pruning.DependencyGraph()
        graph.build_dependency(network, self.task.example_input)
        for group, kept in zip(self.groups, self.unrepaired.kept_units(widths), strict=True):
            gone = np.setdiff1d(np.arange(group.size), kept)
            producer = next(each for each in group.producers() if each.layer == group.name)
            layer = network.get_submodule(group.name)
            prune = (
                torch_pruning.prune_linear_out_channels
                if isinstance(layer, nn.Linear)
                else torch_pruning.prune_conv_out_channels
            )
            if len(gone):
                graph.get_pruning_group(layer, prune, producer.kept(gone).tolist()).prune()
        return self._float_accuracy(network)

    @torch.inference_mode()
    def _float_accuracy(self, network: nn.Module) -> Found:
        validation = self.task.validation
        pieces = zip(validation.images.split(_BATCH), validation.labels.split(_BATCH), strict=True)
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in pieces)
        return Found(right / len(validation))

    def parts(self, widths: Candidate) -> dict[str, Timing]:
        """Parts of an evaluation of ours: slimming, with repair, and the forward pass alone."""
        statistics_of_task = self.unrepaired.builder.statistics
        timings = {}
        for repair, name in (("none", "slimming"), ("quick", "slimming and quick repair")):
            with torch.inference_mode():
                slimmed, timings[name] = timed(partial(self._builder.slim, widths, repair))
        network = for_inference(slimmed, statistics_of_task.norms, self.precision)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        images = [
            batch.to(dtype, memory_format=torch.channels_last)
            for batch in self.task.validation.images.split(_BATCH)
        ]
        with torch.inference_mode():
            network(images[0])  # the first call packs weights
            _, timings[_FORWARD] = timed(lambda: [network(batch) for batch in images])
        return timings


def _accuracy(evaluator: CandidateEvaluator, widths: Candidate) -> Found:
    evaluation = evaluator.evaluate(widths)
    return Found(evaluation.measures["accuracy"], evaluation.standard_errors.get("accuracy"))


def matrix_rate(dtype: torch.dtype, repeats: int = 5) -> float:
    """The machine's best rate, on one thread, of a large matrix product, FLOP/s."""
    left, right = torch.randn(2, _MATRIX, _MATRIX).to(dtype)
    product: Tensor = left @ right
    timings = [timed(lambda: torch.mm(left, right, out=product))[1] for _ in range(repeats)]
    # Processor time, so that a busy machine does not look slow here and fast elsewhere.
    return 2 * _MATRIX**3 / min(each.cpu for each in timings)


def measure(
    contenders: Contenders, targets: list[float], rounds: int, spread: float, seed: int
) -> list[Row]:
    """Time all contenders on one task; one row of results per contender and target."""
    structure = contenders.groups.structure
    rng = np.random.default_rng(seed)
    images = len(contenders.task.validation)
    timings: Timings = defaultdict(list)
    found: dict[tuple[float, str], list[Found]] = defaultdict(list)
    shares: dict[float, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for target in targets:
            widths = jittered_widths(structure, target, spread, rng)
            for name, call in contenders.calls(widths).items():
                value, timing = timed(call)
                if number:  # the first round only warms up
                    timings[target, name].append(timing)
                    found[target, name].append(value)
            parts = contenders.parts(widths)
            if number:
                shares[target].append(int(structure.flops(widths)) / structure.dense_flops)
                for name, timing in parts.items():
                    timings[target, name].append(timing)
    return [
        Row(
            network=contenders.task.name.partition(" on ")[0],
            flops=statistics.median(shares[target]),
            contender=name,
            precision="fp32" if name in _BASELINES else contenders.precision,
            wall=_summary([each.wall for each in measured]),
            cpu=_summary([each.cpu for each in measured]),
            wall_ratios=_ratios(timings, target, name, "wall"),
            cpu_ratios=_ratios(timings, target, name, "cpu"),
            accuracy=_mean([each.accuracy for each in found[target, name]]),
            standard_error=_root_mean_square([each.standard_error for each in found[target, name]]),
            operations=statistics.median(shares[target]) * structure.dense_flops * images,
        )
        for (target, name), measured in timings.items()
    ]


def _summary(seconds: list[float]) -> tuple[float, float, float]:
    return statistics.median(seconds), min(seconds), max(seconds)


def _mean(values: list[float]) -> float | None:
    return statistics.mean(values) if values else None


def _root_mean_square(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.sqrt(np.mean(np.square(known)))) if known else None


def _ratios(timings: Timings, target: float, name: str, clock: str) -> tuple[float, ...]:
    return tuple(
        statistics.median(
            getattr(theirs, clock) / getattr(own, clock)
            for theirs, own in zip(timings[target, baseline], timings[target, name], strict=True)
        )
        for baseline in _BASELINES
    )


def main() -> None:
    """Time everything and print a table per network and one line of JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--networks", nargs="+", default=["resnet20", "resnet56", "vgg16bn"])
    arguments.add_argument("--flops", nargs="+", type=float, default=[0.5, 0.2])
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--sampled", type=int, default=400)
    arguments.add_argument("--recalibration", type=int, default=128)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--spread", type=float, default=0.2)
    options = arguments.parse_args()
    if options.smoke:
        options.networks, options.flops, options.rounds = [SMOKE_NETWORK], [0.5], 1
        options.images, options.sampled = 200, 100
    run(options)


def run(options: argparse.Namespace) -> None:
    """Measure what the options ask for."""
    torch.set_num_threads(1)
    rates = {name: matrix_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    rows: list[Row] = []
    for network in options.networks:
        task = real_task(network, options.data, validation=options.images, seed=options.seed)
        contenders = Contenders(task, options.sampled, options.recalibration, options.seed)
        measured = measure(contenders, options.flops, options.rounds, options.spread, options.seed)
        _print_network(network, (len(task.validation), options.sampled), measured, rates)
        rows += measured
    # The machine may have slowed down in between.
    for name, rate in rates.items():
        rates[name] = max(rate, matrix_rate(getattr(torch, name)))
    print_table(
        "Matrix product, one thread",
        ["precision", "GFLOP/s"],
        [[name, f"{rate / 1e9:.0f}"] for name, rate in rates.items()],
    )
    print_result(
        "candidate_throughput",
        images=options.images,
        sampled=options.sampled,
        recalibration=options.recalibration,
        rounds=options.rounds,
        spread=options.spread,
        matrix_flop_per_second=rates,
        rows=[asdict(row) for row in rows],
    )


def _print_network(
    network: str, images: tuple[int, int], rows: list[Row], rates: dict[str, float]
) -> None:
    columns = [
        "FLOPs",
        "what",
        "wall s, median (range)",
        "CPU s",
        "x amc, wall (CPU)",
        "x torch-pruning, wall (CPU)",
        "accuracy %",
    ]
    lines = [
        [
            f"{100 * row.flops:.0f} %",
            row.contender,
            "{:.3f} ({:.3f} to {:.3f})".format(*row.wall),
            row.cpu[0],
            *(
                f"{wall:.1f} ({cpu:.1f})"
                for wall, cpu in zip(row.wall_ratios, row.cpu_ratios, strict=True)
            ),
            _percent(row),
        ]
        for row in rows
    ]
    title = f"{network}, {images[0]} images ({images[1]} of them sampled), one thread"
    print_table(title, columns, lines)
    for row in rows:
        if row.contender == _FORWARD:
            best = rates["bfloat16" if row.precision == "bf16" else "float32"]
            print(
                f"forward pass at {100 * row.flops:.0f} % FLOPs in {row.precision}: "
                f"{row.rate / 1e9:.0f} GFLOP/s, {100 * row.rate / best:.0f} % of the "
                f"matrix product's {best / 1e9:.0f}",
                flush=True,
            )


def _percent(row: Row) -> str:
    if row.accuracy is None:
        return "-"
    accuracy, error = f"{100 * row.accuracy:.1f}", row.standard_error
    return accuracy if error is None else f"{accuracy} (s.e. {100 * error:.2f})"


if __name__ == "__main__":
    main()
