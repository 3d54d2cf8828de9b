"""What the benchmarks share: real tasks, candidates of a given cost, tables, a line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from prunetune.models import (
    Candidate,
    DataSpec,
    LabelledImages,
    PruningTask,
    Structure,
    TaskSpec,
    accuracy,
    load_task,
)
from prunetune.models.data import Augmentation
from prunetune.models.inference.folding import fold_batchnorm
from prunetune.models.inference.fused import plan_inference
from prunetune.models.inference.precision import cast_network
from prunetune.search.run.machine import describe_environment
from torch import nn

DATA_VARIABLE = "PRUNETUNE_TEST_DATA"
SMOKE_NETWORK = "digits-net"
_BISECTIONS = 40


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has: ``--data``, ``--seed`` and ``--smoke``."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    options.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(DATA_VARIABLE, beside)),
        help=f"folder with cifar10/*.parquet and weights/*.safetensors; also ${DATA_VARIABLE}",
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--smoke",
        action="store_true",
        help=f"the smallest run, on {SMOKE_NETWORK}, without real data: its figures mean nothing",
    )
    return options


def real_task_spec(
    network: str,
    data: Path,
    *,
    calibration: int = 512,
    validation: int = 1000,
    augmentation: Augmentation = "none",
) -> TaskSpec:
    """A trained network with CIFAR-10, or ``digits-net`` with its digits.

    Args:
        network: ``resnet20``, ``resnet56``, ``vgg16bn`` or ``digits-net``.
        data: Folder with ``cifar10`` and ``weights``, whose ``index.json`` holds the means and
            standard deviations that each network was trained with.
        calibration: Calibration images; ``digits-net`` takes what it has.
        validation: Validation images; likewise.
        augmentation: How validation images are changed.
    """
    if network == SMOKE_NETWORK:
        # With the default sizes its training is the one that the quickstart has cached.
        return TaskSpec(model=network, augment_validation=augmentation)
    stem = f"cifar10_{network}"
    trained = json.loads((data / "weights" / "index.json").read_text())[stem]
    return TaskSpec(
        model=network,
        weights=data / "weights" / f"{stem}.safetensors",
        data=DataSpec(
            name="parquet", root=data / "cifar10", mean=trained["mean"], std=trained["std"]
        ),
        calibration=calibration,
        validation=validation,
        augment_validation=augmentation,
    )


def real_task(network: str, data: Path, *, seed: int = 0, **sizes: Any) -> PruningTask:
    """The task of :func:`real_task_spec`, loaded; ``seed`` decides its splits."""
    return load_task(real_task_spec(network, data, **sizes), seed)


def uniform_widths(structure: Structure, share: float) -> Candidate:
    """The same share of every group, rounded, at least one unit."""
    return _scaled(structure, np.ones(len(structure.groups)), share)


def widths_at(structure: Structure, flops: float, factors: ArrayLike) -> Candidate:
    """Widths in the proportions of ``factors`` that come closest to a cost from below.

    Args:
        structure: Cost tables.
        flops: Target, as a fraction of the dense network's FLOPs.
        factors: One positive number per group; ones give uniform widths.
    """
    shares = np.asarray(factors, dtype=np.float64)
    low, high = 0.0, 1.0 / shares.min()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        cost = int(structure.flops(_scaled(structure, shares, middle))) / structure.dense_flops
        low, high = (middle, high) if cost <= flops else (low, middle)
    return _scaled(structure, shares, low)


def jittered_widths(
    structure: Structure, flops: float, spread: float, rng: np.random.Generator
) -> Candidate:
    """Random widths near a cost; no two groups keep the same share.

    Args:
        structure: Cost tables.
        flops: As for :func:`widths_at`.
        spread: Factors are uniform in 1 - spread to 1 + spread, less than 1.
        rng: Source of randomness.
    """
    factors = rng.uniform(1 - spread, 1 + spread, len(structure.groups))
    return widths_at(structure, flops, factors)


def for_inference(network: nn.Module, norms: dict[str, str], precision: str) -> nn.Module:
    """The network as the evaluator runs it: cast, BatchNorm folded, calls fused.

    Args:
        network: A slim or dense network, float32; it is not changed.
        norms: BatchNorm that directly follows a layer, by layer name.
        precision: ``fp32`` or ``bf16``.
    """
    chosen: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
    with torch.inference_mode():
        folded = fold_batchnorm(cast_network(network, chosen, torch.device("cpu")), norms)
        plan = plan_inference(folded)
        return folded if plan is None else plan.prepare(folded)


def measured_accuracy(
    network: nn.Module, norms: dict[str, str], images: LabelledImages, precision: str
) -> float:
    """Top-1 accuracy as a fraction, run as the evaluator runs candidates."""
    with torch.inference_mode():
        return accuracy(for_inference(network, norms, precision), images, batch_size=100)


@dataclass(frozen=True)
class Timing:
    """How long one call took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of processor time of this process, which other processes disturb less.
    """

    wall: float
    cpu: float


def timed(call: Callable[[], Any]) -> tuple[Any, Timing]:
    """Call it, and say how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, Timing(time.perf_counter() - wall, time.process_time() - cpu)


def spearman(left: ArrayLike, right: ArrayLike) -> float:
    """Spearman's rank correlation, ties by average rank; not-a-number for a constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(np.asarray(left), np.asarray(right)).statistic)


def spearman_interval(
    left: ArrayLike, right: ArrayLike, seed: int, resamples: int = 2000
) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of :func:`spearman` (Efron 1979)."""
    first, second = np.asarray(left), np.asarray(right)
    rng = np.random.default_rng(seed)
    drawn = [
        spearman(first[index], second[index])
        for index in rng.integers(len(first), size=(resamples, len(first)))
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table as aligned Markdown, ready for the documentation."""
    cells = [[_text(each) for each in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    print(f"\n{title}\n\n{line(columns)}\n| {' | '.join('-' * width for width in widths)} |")
    for row in cells:
        print(line(row))
    print(flush=True)


def print_result(name: str, **values: Any) -> None:
    """The last line of a benchmark: everything it found, and where, as one line of JSON."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = {
        **describe_environment(),
        "threads": torch.get_num_threads(),
        "load": load,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    print(json.dumps({"benchmark": name, **values, "environment": where}), flush=True)


def _scaled(structure: Structure, factors: NDArray[np.float64], scale: float) -> Candidate:
    widths = np.clip(np.rint(factors * scale * structure.sizes), 1, structure.sizes)
    return tuple(int(width) for width in widths)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
