"""Measures latencies: of whole networks, and layer by layer for a table."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..cache import cache_folder, cache_key
from ..groups import ChannelGroups
from ..layers import adapter_of
from ..progress import SILENT, Progress
from ..reductions.channels import slim
from ..space import Candidate
from ..task import PruningTask
from .latency import LatencyTable
from .tables import TIED, LayerInfo, Structure

__all__ = ["fit_latency", "measure_latency"]

# Part of the cache's key: raise it when latencies are measured or fitted in another way.
_VERSION = 1
# Shares of its units at which a layer is measured, on either side; in between it is interpolated.
_KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LAYER_SECONDS, _NETWORK_SECONDS = 0.01, 0.2
# Uniform candidates that the sum over layers is fitted to.
_FITTED = (1.0, 0.75, 0.5, 0.25, 0.1)

_Key = tuple[Any, ...]


def measure_latency(
    network: Callable[[Tensor], Tensor], image: Tensor, seconds: float = _NETWORK_SECONDS
) -> float:
    """Seconds of one forward pass, with ``torch.utils.benchmark`` and one thread.

    What is measured is processor time, which on an idle machine is the latency of one thread, and
    on a busy one leaves out waiting for others. The fastest block counts, since what still
    disturbs only ever adds to a time.

    Args:
        network: In evaluation mode, or a layer.
        image: Its input, a batch of one.
        seconds: How long to measure at least.
    """
    with torch.inference_mode():
        timer = _timer_class()(
            "network(image)",
            timer=time.thread_time,
            globals={"network": network, "image": image},
            num_threads=1,
        )
        return float(min(timer.blocked_autorange(min_run_time=seconds).times))


def _timer_class() -> Any:
    """Torch's timer, imported when something is timed.

    With it comes what compiles extensions, and that warns, on every machine with CUDA's compiler
    and no GPU, that there is no GPU.
    """
    log = logging.getLogger("torch.utils.cpp_extension")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        from torch.utils.benchmark import Timer
    finally:
        log.setLevel(level)
    return Timer


def fit_latency(
    task: PruningTask, groups: ChannelGroups, progress: Progress = SILENT
) -> LatencyTable:
    """Measure the layers of a task's network on this machine, or take them from the cache.

    Each layer is timed by itself, float32 and at batch 1, over a grid of channel counts. What
    layers do not account for (activations, sums, Python) is fitted to whole networks of uniform
    widths: seconds = constant + scale x sum over layers, by least squares (our choice).

    Args:
        task: The task.
        groups: Its channel groups.
        progress: Receives a note of what takes long, and of how well the table fits.
    """
    facts = {
        "version": _VERSION,
        "task": task.digest,
        "structure": groups.structure.to_dict(),
        "machine": [platform.node(), platform.machine(), _processor()],
        "torch": torch.__version__,
    }
    path = cache_folder() / "latency" / f"{cache_key(facts)}.json"
    try:
        return LatencyTable.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    progress.note(f"Measuring the latency of {len(groups.structure.layers)} layers")
    table = _fit(task.network, task.example_input, groups)
    progress.note(f"The latency table is off by {100 * table.error:.0f} % on average")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(table.to_dict()))
        partial.replace(path)
    except OSError as error:
        progress.note(f"The latency table cannot be cached in {path.parent}: {error}")
    return table


def _fit(network: nn.Module, image: Tensor, groups: ChannelGroups) -> LatencyTable:
    structure = groups.structure
    inputs = [_counts(structure, each, reads=True) for each in structure.layers]
    outputs = [_counts(structure, each, reads=False) for each in structure.layers]
    known: dict[_Key, float] = {}
    seconds = [
        _measure_layer(layer, network.get_submodule(layer.name), reads, writes, known)
        for layer, reads, writes in zip(structure.layers, inputs, outputs, strict=True)
    ]
    raw = LatencyTable(tuple(inputs), tuple(outputs), tuple(seconds), 0.0, 0.0)
    widths = [tuple(max(1, round(share * size)) for size in groups.sizes) for share in _FITTED]
    measured = np.array([measure_latency(_slim(network, groups, each), image) for each in widths])
    sums = raw.layers(*structure.channels(np.array(widths))).sum(axis=1)
    constant, scale = _line(sums, measured)
    error = float(np.mean(np.abs(constant + scale * sums - measured) / measured))
    scaled = tuple(tuple(tuple(scale * s for s in row) for row in each) for each in seconds)
    return LatencyTable(raw.inputs, raw.outputs, scaled, constant, error)


def _line(sums: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    """Constant and scale, neither of them negative, of the least relative squares."""
    weights = 1.0 / measured
    columns = np.column_stack([np.ones(len(sums)), sums]) * weights[:, None]
    (constant, scale), *_ = np.linalg.lstsq(columns, np.ones(len(sums)), rcond=None)
    if scale <= 0:
        return 0.0, float(measured[0] / sums[0])
    if constant < 0:
        return 0.0, float((columns[:, 1] @ np.ones(len(sums))) / (columns[:, 1] @ columns[:, 1]))
    return float(constant), float(scale)


def _counts(structure: Structure, layer: LayerInfo, reads: bool) -> tuple[int, ...]:
    """Channel counts of one side of a layer at the knots, all equal where nothing decides them."""
    share = layer.inputs if reads else layer.outputs
    fixed = layer.fixed_inputs if reads else layer.fixed_outputs
    counts = []
    for knot in _KNOTS:
        units = [max(1, round(knot * structure.groups[group].size)) for group, _ in share]
        counts.append(fixed + sum(n * each for n, (_, each) in zip(units, share, strict=True)))
    return tuple(counts)


def _measure_layer(
    layer: LayerInfo,
    module: nn.Module,
    inputs: Sequence[int],
    outputs: Sequence[int],
    known: dict[_Key, float],
) -> tuple[tuple[float, ...], ...]:
    """Seconds at all pairs of channel counts, [K][K], made never to fall."""
    seconds = np.zeros((len(inputs), len(outputs)))
    # What such a layer reads is what it writes.
    tied = layer.kind in TIED
    for column, writes in enumerate(outputs):
        for row, reads in enumerate(inputs):
            sizes = (writes if tied else reads, writes)
            kind = (type(module), layer.kind, layer.groups, layer.input_size)
            key = (*sizes, *kind, *_settings(module))
            if key not in known:
                known[key] = _time_layer(layer, module, *sizes)
            seconds[row, column] = known[key]
    # Noise must not make a wider layer look cheaper: the shield counts on costs that grow.
    rising = np.maximum.accumulate(np.maximum.accumulate(seconds, axis=0), axis=1)
    return tuple(tuple(float(each) for each in row) for row in rising)


def _settings(module: nn.Module) -> _Key:
    names = ("kernel_size", "stride", "padding", "dilation", "affine", "elementwise_affine")
    return (*(getattr(module, name, None) for name in names), getattr(module, "bias", None) is None)


def _time_layer(layer: LayerInfo, module: nn.Module, inputs: int, outputs: int) -> float:
    adapter = adapter_of(module)
    # The table lists layers with adapters only.
    assert adapter is not None
    if isinstance(module, nn.Conv2d):
        made: nn.Module = nn.Conv2d(
            inputs,
            outputs,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            inputs if layer.kind == "depthwise" else layer.groups,
            module.bias is not None,
        )
    elif isinstance(module, nn.Linear):
        made = nn.Linear(inputs, outputs, module.bias is not None)
    else:
        made = adapter.slim(module, np.arange(outputs, dtype=np.int64), None)
    image = adapter.blank_input(module, inputs, layer.input_size)
    return measure_latency(made.eval(), image, _LAYER_SECONDS)


def _slim(network: nn.Module, groups: ChannelGroups, widths: Candidate) -> nn.Module:
    return slim(network, groups, [np.arange(width, dtype=np.int64) for width in widths]).eval()


def _processor() -> str:
    return platform.processor() or platform.machine()
